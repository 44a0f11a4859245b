"""Programs in C, C++ and Fortran that are steered: the files that they are compiled with, and what runs in them.

``ipmpi_steer.h``, ``ipmpi_steer.c``, ``ipmpi_steer.f90`` and ``ipmpi_steer-config.cmake`` lie beside this file;
``ipmpi-steer-config`` tells compilers where.
"""
