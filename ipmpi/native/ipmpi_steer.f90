! Steer an MPI program in Fortran from an IPython session: see ipmpi_steer.h.
!
! Arrays keep their shape and order: element T(i, j) is T[i - 1, j - 1] in Python, whatever its bounds in Fortran are.
! Declare them, and the numbers, as target (or as pointer, or in a module that is saved).
module ipmpi_steer
  use, intrinsic :: iso_c_binding, only: c_char, c_double, c_int, c_int64_t, c_loc, c_null_char, c_null_ptr, c_ptr
  implicit none
  private
  public :: ipmpi_attach, ipmpi_array, ipmpi_global, ipmpi_double, ipmpi_int, ipmpi_forget, ipmpi_tick, ipmpi_detach

  !> All ranks of a communicator can be steered: an integer, as module mpi has it, or comm%mpi_val of mpi_f08.
  interface
    integer(c_int) function attach_in_c(comm) bind(c, name="ipmpi_attach_fortran")
      import :: c_int
      integer(c_int), value :: comm
    end function
    integer(c_int) function array_in_c(name, a) bind(c, name="ipmpi_array_fortran")
      import :: c_char, c_int
      character(kind=c_char), intent(in) :: name(*)
      type(*), dimension(..), intent(in) :: a
    end function
    integer(c_int) function global_in_c(name, offset, extents, halo) bind(c, name="ipmpi_global")
      import :: c_char, c_int, c_int64_t, c_ptr
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int64_t), intent(in) :: offset(*), extents(*)
      type(c_ptr), value :: halo
    end function
    integer(c_int) function double_in_c(name, x) bind(c, name="ipmpi_double")
      import :: c_char, c_int, c_ptr
      character(kind=c_char), intent(in) :: name(*)
      type(c_ptr), value :: x
    end function
    integer(c_int) function int_in_c(name, x) bind(c, name="ipmpi_int")
      import :: c_char, c_int, c_ptr
      character(kind=c_char), intent(in) :: name(*)
      type(c_ptr), value :: x
    end function
    integer(c_int) function forget_in_c(name) bind(c, name="ipmpi_forget")
      import :: c_char, c_int
      character(kind=c_char), intent(in) :: name(*)
    end function
    integer(c_int) function tick_in_c(step) bind(c, name="ipmpi_tick")
      import :: c_int, c_int64_t
      integer(c_int64_t), value :: step
    end function
    integer(c_int) function detach_in_c() bind(c, name="ipmpi_detach")
      import :: c_int
    end function
  end interface

contains

  !> Let the ranks of a communicator be steered; failed is not 0 if this run cannot be.
  subroutine ipmpi_attach(comm, failed)
    integer, intent(in) :: comm
    integer, intent(out), optional :: failed
    call told(int(attach_in_c(int(comm, c_int))), failed)
  end subroutine

  !> Name an array of any rank, of real, integer or complex elements. It may be a section.
  subroutine ipmpi_array(name, a, failed)
    character(*), intent(in) :: name
    type(*), dimension(..), intent(in), target :: a
    integer, intent(out), optional :: failed
    call told(int(array_in_c(c_text(name), a)), failed)
  end subroutine

  !> Say which part of one global array it is. Offsets count from 0.
  subroutine ipmpi_global(name, offset, extents, halo, failed)
    character(*), intent(in) :: name
    integer, intent(in) :: offset(:), extents(:)
    integer, intent(in), optional :: halo(:)
    integer, intent(out), optional :: failed
    integer(c_int64_t), target :: ghosts(size(offset))
    type(c_ptr) :: ghosts_at
    ghosts_at = c_null_ptr
    if (present(halo)) then
      ghosts = halo
      ghosts_at = c_loc(ghosts)
    end if
    call told(int(global_in_c(c_text(name), int(offset, c_int64_t), int(extents, c_int64_t), ghosts_at)), failed)
  end subroutine

  !> Name a number that may be changed between two steps.
  subroutine ipmpi_double(name, x, failed)
    character(*), intent(in) :: name
    real(c_double), intent(in), target :: x
    integer, intent(out), optional :: failed
    call told(int(double_in_c(c_text(name), c_loc(x))), failed)
  end subroutine

  subroutine ipmpi_int(name, x, failed)
    character(*), intent(in) :: name
    integer(c_int), intent(in), target :: x
    integer, intent(out), optional :: failed
    call told(int(int_in_c(c_text(name), c_loc(x))), failed)
  end subroutine

  !> Take back a name, before its array is deallocated.
  subroutine ipmpi_forget(name, failed)
    character(*), intent(in) :: name
    integer, intent(out), optional :: failed
    call told(int(forget_in_c(c_text(name))), failed)
  end subroutine

  !> Between two steps: do what has been asked for. True if the program is asked to stop.
  logical function ipmpi_tick(step)
    integer, intent(in) :: step
    ipmpi_tick = tick_in_c(int(step, c_int64_t)) == 1
  end function

  subroutine ipmpi_detach(failed)
    integer, intent(out), optional :: failed
    call told(int(detach_in_c()), failed)
  end subroutine

  function c_text(name)
    character(*), intent(in) :: name
    character(kind=c_char, len=len_trim(name) + 1) :: c_text
    c_text = trim(name)//c_null_char
  end function

  subroutine told(result, failed)
    integer, intent(in) :: result
    integer, intent(out), optional :: failed
    if (present(failed)) failed = result
  end subroutine
end module
