/* What can be done wrong in C: each call ends in a sentence, and the program, which a client stops, in exit code 0. */
#define _GNU_SOURCE
#include <ipmpi_steer.h>
#include <pthread.h>
#include <sys/mman.h>

static void *in_a_thread(void *result)
{
    *(int *)result = ipmpi_attach(MPI_COMM_WORLD);
    return NULL;
}

static void *ticks_in_a_thread(void *result)
{
    *(int *)result = ipmpi_tick(0);
    return NULL;
}

int main(int argc, char **argv)
{
    double T[12] = {0}, *paged;
    int64_t shape[] = {3, 4}, negative[] = {3, -4}, huge[] = {INT64_MAX, INT64_MAX}, begin[] = {2, 0}, zero[] = {0, 0};
    int64_t page[] = {512};
    int got, refused = 0, calls = 0, step;
    pthread_t thread;
#define BAD(call) (calls++, refused += (call) == -1)

    BAD(ipmpi_tick(0));
    BAD(ipmpi_attach(MPI_COMM_WORLD));
    MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &got);
    BAD(ipmpi_array("T", T, 2, shape, NULL, IPMPI_DOUBLE));
    BAD(ipmpi_attach(MPI_COMM_NULL));
    pthread_create(&thread, NULL, in_a_thread, &got);
    pthread_join(thread, NULL);
    BAD(got);
    if (ipmpi_attach(MPI_COMM_WORLD)) return 1;
    BAD(ipmpi_attach(MPI_COMM_WORLD));
    BAD(ipmpi_array(NULL, T, 2, shape, NULL, IPMPI_DOUBLE));
    BAD(ipmpi_array("no name", T, 2, shape, NULL, IPMPI_DOUBLE));
    BAD(ipmpi_array("A", NULL, 2, shape, NULL, IPMPI_DOUBLE));
    BAD(ipmpi_array("B", T, 2, NULL, NULL, IPMPI_DOUBLE));
    BAD(ipmpi_array("C", T, 99, shape, NULL, IPMPI_DOUBLE));
    BAD(ipmpi_array("D", T, 2, negative, NULL, IPMPI_DOUBLE));
    BAD(ipmpi_array("E", T, 2, huge, NULL, IPMPI_DOUBLE));
    BAD(ipmpi_array("F", T, 2, shape, NULL, "quadruple"));
    BAD(ipmpi_array("G", T, 2, shape, NULL, NULL));
    BAD(ipmpi_array("halo", T, 2, shape, NULL, IPMPI_DOUBLE));
    BAD(ipmpi_double("x", NULL));
    BAD(ipmpi_double("step", T));
    BAD(ipmpi_global("H", zero, shape, NULL));
    if (ipmpi_array("T", T, 2, shape, NULL, IPMPI_DOUBLE)) return 2;
    BAD(ipmpi_global("T", NULL, shape, NULL));
    BAD(ipmpi_global("T", begin, shape, NULL));
    BAD(ipmpi_forget("U"));
    pthread_create(&thread, NULL, ticks_in_a_thread, &got);
    pthread_join(thread, NULL);
    BAD(got);
    if (ipmpi_array("first", T, 0, NULL, NULL, IPMPI_DOUBLE) || ipmpi_tick(0)) return 3;
    paged = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ipmpi_array("gone", paged, 1, page, NULL, IPMPI_DOUBLE)) return 4;
    munmap(paged, 4096);
    for (step = 0; !ipmpi_tick(step); step++) continue;
    if (ipmpi_forget("T") || ipmpi_detach() || ipmpi_detach()) return 5;
    MPI_Finalize();
    BAD(ipmpi_attach(MPI_COMM_WORLD));
    return refused == calls ? 0 : 6;
}
