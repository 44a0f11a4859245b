/* Steer an MPI program in C, C++ or Fortran from an IPython session.
 *
 *     ipmpi_attach(MPI_COMM_WORLD);
 *     ipmpi_double("nu", &nu);
 *     ipmpi_array("T", T, 2, shape, NULL, IPMPI_DOUBLE);
 *     for (step = 0; step < steps; step++) {
 *         advance(T, nu);
 *         if (ipmpi_tick(step)) break;
 *     }
 *     ipmpi_detach();
 *
 * Compile ipmpi_steer.c with your program; `ipmpi-steer-config` prints what compiler and linker need. No header and
 * no library of Python is needed for that: Python is loaded by ipmpi_attach, if it is there.
 *
 * Nothing here ends the program. A function that cannot do what it is asked for prints one sentence to stderr and
 * returns -1, and the program goes on. All functions belong into the thread that has called MPI_Init; the communicator
 * of that thread's program and the memory that is named stay the program's own.
 *
 * With IPMPI_STEERING=off in the environment, all of them return at once.
 */
#ifndef IPMPI_STEER_H
#define IPMPI_STEER_H

#include <mpi.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What an element of an array is; any other name that numpy.dtype() understands will do as well. */
#define IPMPI_DOUBLE "f8"
#define IPMPI_FLOAT "f4"
#define IPMPI_INT "i4"
#define IPMPI_LONG "i8"
#define IPMPI_DOUBLE_COMPLEX "c16"
#define IPMPI_FLOAT_COMPLEX "c8"
#define IPMPI_BYTE "u1"

/* Let the ranks of a communicator be steered. Collective. Returns 0, or -1 if this run cannot be steered. */
int ipmpi_attach(MPI_Comm comm);

/* Name an array. Strides are in bytes; NULL says that it is contiguous, in the order of C. A second call with the same
 * name replaces the first, and what ipmpi_global has said of it. The memory has to stay until ipmpi_forget(name) or ipmpi_detach(). */
int ipmpi_array(const char *name, void *data, int ndim, const int64_t *shape, const int64_t *strides,
                const char *dtype);

/* Say which part of one global array the array with this name is: where this rank's part begins, and how large the
 * whole is. So many elements at both ends of each dimension are copies of what neighbours own (halo, NULL: none); they
 * do not count as part of it. */
int ipmpi_global(const char *name, const int64_t *offset, const int64_t *shape, const int64_t *halo);

/* Name a number that may be changed between two steps. */
int ipmpi_double(const char *name, double *value);
int ipmpi_int(const char *name, int *value);

/* Take back a name, before its memory is freed. */
int ipmpi_forget(const char *name);

/* Between two steps, at the same place on all ranks: what has been asked for is done here. Returns 1 if the program is
 * asked to stop, otherwise 0. Costs some nanoseconds while nothing is asked for. */
int ipmpi_tick(int64_t step);

/* Leave. Collective. MPI_Finalize calls it for those who forget. */
int ipmpi_detach(void);

/* The same, for the module for Fortran: a communicator and an assumed-rank array as Fortran has them. */
int ipmpi_attach_fortran(int comm);
int ipmpi_array_fortran(const char *name, void *descriptor);

#ifdef __cplusplus
}
#endif
#endif
