# find_package(ipmpi_steer) defines the library ipmpi::steer for C and C++, and ipmpi::steer_fortran where the project
# has Fortran.
#
#     cmake -Dipmpi_steer_DIR=$(ipmpi-steer-config --cmakedir) ...
#
# IPMPI_STEER_CONFIG names the command ipmpi-steer-config, if it is not the one found in PATH.
find_program(IPMPI_STEER_CONFIG ipmpi-steer-config HINTS "${CMAKE_CURRENT_LIST_DIR}/../../../../../bin")
if(NOT IPMPI_STEER_CONFIG)
  set(ipmpi_steer_FOUND FALSE)
  set(ipmpi_steer_NOT_FOUND_MESSAGE
      "The command ipmpi-steer-config is not in PATH: activate the environment that has ipmpi, or set IPMPI_STEER_CONFIG")
  return()
endif()
include(CMakeFindDependencyMacro)
find_dependency(MPI COMPONENTS C)

if(NOT TARGET ipmpi::steer)
  foreach(_ipmpi_name python libpython)
    execute_process(COMMAND "${IPMPI_STEER_CONFIG}" --${_ipmpi_name} OUTPUT_VARIABLE _ipmpi_${_ipmpi_name}
                    OUTPUT_STRIP_TRAILING_WHITESPACE)
  endforeach()
  add_library(ipmpi_steer STATIC "${CMAKE_CURRENT_LIST_DIR}/ipmpi_steer.c")
  add_library(ipmpi::steer ALIAS ipmpi_steer)
  target_include_directories(ipmpi_steer PUBLIC "${CMAKE_CURRENT_LIST_DIR}")
  target_link_libraries(ipmpi_steer PUBLIC MPI::MPI_C ${CMAKE_DL_LIBS} m)
  if(_ipmpi_libpython)
    target_compile_definitions(ipmpi_steer PRIVATE "IPMPI_PYTHON=${_ipmpi_python}"
                               "IPMPI_LIBPYTHON=${_ipmpi_libpython}")
  endif()

  if(CMAKE_Fortran_COMPILER)
    add_library(ipmpi_steer_fortran STATIC "${CMAKE_CURRENT_LIST_DIR}/ipmpi_steer.f90")
    add_library(ipmpi::steer_fortran ALIAS ipmpi_steer_fortran)
    set_target_properties(ipmpi_steer_fortran PROPERTIES
                          Fortran_MODULE_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/ipmpi_steer_modules")
    target_include_directories(ipmpi_steer_fortran PUBLIC "${CMAKE_CURRENT_BINARY_DIR}/ipmpi_steer_modules")
    target_link_libraries(ipmpi_steer_fortran PUBLIC ipmpi_steer)
  endif()
endif()
