/* Rank 1 attaches in a thread, the others where they should: none is steered, and all go on. */
#include <ipmpi_steer.h>
#include <pthread.h>

static void *attach(void *result)
{
    *(int *)result = ipmpi_attach(MPI_COMM_WORLD);
    return NULL;
}

int main(int argc, char **argv)
{
    int got, rank, result, step;
    pthread_t thread;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &got);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 1) {
        pthread_create(&thread, NULL, attach, &result);
        pthread_join(thread, NULL);
    } else
        attach(&result);
    if (result != -1) return 1;
    for (step = 0; step < 10; step++)
        if (ipmpi_tick(step)) return 2;
    MPI_Finalize();
    return 0;
}
