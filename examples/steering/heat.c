/* Heat on a square plate whose edges are held at 0, as an MPI program that can be steered.
 *
 *     heat STEPS FILE [STEP NU]
 *
 * Each rank owns some rows. The temperature after so many steps is written to FILE. With STEP and NU, the conductivity
 * is changed before that step: this is what steering does without having been planned.
 */
#include <ipmpi_steer.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 64 }; /* points inside of the plate, in each direction */

static double (*T)[N + 2], (*next)[N + 2]; /* rows of this rank, and one more at each side */

static void exchange(int rows, int above, int below)
{
    MPI_Sendrecv(T[1], N + 2, MPI_DOUBLE, above, 0, T[rows + 1], N + 2, MPI_DOUBLE, below, 0, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    MPI_Sendrecv(T[rows], N + 2, MPI_DOUBLE, below, 1, T[0], N + 2, MPI_DOUBLE, above, 1, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
}

static void advance(int rows, double r)
{
    int i, j;
    for (i = 1; i <= rows; i++)
        for (j = 1; j <= N; j++)
            next[i][j] = T[i][j] + r * (((T[i - 1][j] + T[i + 1][j]) + (T[i][j - 1] + T[i][j + 1])) - 4 * T[i][j]);
    for (i = 1; i <= rows; i++) memcpy(&T[i][1], &next[i][1], N * sizeof(double));
}

static void write_field(const char *path, int rank, int size, int rows)
{
    int each, *counts = malloc(size * sizeof(int)), *starts = malloc(size * sizeof(int));
    double *mine = malloc((size_t)rows * N * sizeof(double)), *all = malloc(N * N * sizeof(double));
    for (each = 0; each < rows; each++) memcpy(mine + each * N, &T[each + 1][1], N * sizeof(double));
    for (each = 0; each < size; each++) {
        starts[each] = N * each / size * N;
        counts[each] = N * (each + 1) / size * N - starts[each];
    }
    MPI_Gatherv(mine, rows * N, MPI_DOUBLE, all, counts, starts, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    if (rank == 0) {
        FILE *file = fopen(path, "wb");
        if (!file || fwrite(all, sizeof(double), N * N, file) != N * N || fclose(file)) perror(path);
    }
    free(counts), free(starts), free(mine), free(all);
}

int main(int argc, char **argv)
{
    int rank, size, first, rows, i, j, step, steps = argc > 1 ? atoi(argv[1]) : 1000;
    double nu = 1.0, dt = 2e-5, h = 1.0 / (N + 1);

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    first = N * rank / size;
    rows = N * (rank + 1) / size - first;
    T = calloc(rows + 2, sizeof *T);
    next = calloc(rows + 2, sizeof *next);
    for (i = 1; i <= rows; i++) /* a hot corner */
        for (j = 1; j <= N; j++) T[i][j] = first + i <= N / 2 && j <= N / 4 ? 1.0 : 0.0;

    /* --- four lines for steering --- */
    ipmpi_attach(MPI_COMM_WORLD);
    ipmpi_double("nu", &nu);
    ipmpi_array("T", T, 2, (int64_t[]){rows + 2, N + 2}, NULL, IPMPI_DOUBLE);
    ipmpi_global("T", (int64_t[]){first, 0}, (int64_t[]){N, N}, (int64_t[]){1, 1});

    for (step = 0; step < steps; step++) {
        if (ipmpi_tick(step)) break;
        if (argc > 4 && step == atoi(argv[3])) nu = atof(argv[4]);
        exchange(rows, rank > 0 ? rank - 1 : MPI_PROC_NULL, rank < size - 1 ? rank + 1 : MPI_PROC_NULL);
        advance(rows, nu * dt / (h * h));
    }

    ipmpi_detach();
    if (argc > 2) write_field(argv[2], rank, size, rows);
    free(T), free(next);
    MPI_Finalize();
    return 0;
}
