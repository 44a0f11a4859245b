/* A disk that fails: preloaded, it lets calls that write to chosen files fail, from the n-th on, so many times.
 *
 * Files are chosen by a part of their path. Wall-clock time can be shifted as well. A test controls this in its own
 * process: disk_files, disk_fail, disk_calls, clock_shift. For another process: IPMPI_DISK_FILES is the part of the
 * path, and calls fail with IPMPI_DISK_ERRNO while there is a file IPMPI_DISK_FAILS.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static char part[256];
static long at, times, calls, shift;
static int number;
static const char *switch_file;

__attribute__((constructor)) static void settings(void)
{
    const char *files = getenv("IPMPI_DISK_FILES"), *error = getenv("IPMPI_DISK_ERRNO");

    switch_file = getenv("IPMPI_DISK_FAILS");
    if (files)
        strncpy(part, files, sizeof part - 1);
    if (error)
        number = atoi(error);
}

void disk_files(const char *name) { strncpy(part, name, sizeof part - 1); }

/* error 0: only count; negative: write a half of what is asked for (and syncs succeed). */
void disk_fail(long first, int error, long how_often) { at = first; number = error; times = how_often; calls = 0; }

long disk_calls(void) { return calls; }

void clock_shift(long seconds) { shift = seconds; }

static int fails(int fd)
{
    char link[64], path[1024];
    ssize_t length;

    if (!part[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    if (!strstr(path, part))
        return 0;
    calls++;
    if (switch_file)
        return access(switch_file, F_OK) == 0;
    return number && calls >= at && calls < at + times;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define REFUSE(fd) \
    if (fails(fd) && number > 0) { errno = number; return -1; }

#define SHORTEN(fd, size) \
    if (fails(fd)) { \
        if (number > 0) { errno = number; return -1; } \
        size = size > 1 ? size / 2 : size; \
    }

ssize_t write(int fd, const void *data, size_t size) { SHORTEN(fd, size) return NEXT(write)(fd, data, size); }

ssize_t pwrite(int fd, const void *data, size_t size, off_t where)
{ SHORTEN(fd, size) return NEXT(pwrite)(fd, data, size, where); }

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t where)
{ SHORTEN(fd, size) return NEXT(pwrite64)(fd, data, size, where); }

int fsync(int fd) { REFUSE(fd) return NEXT(fsync)(fd); }

int fdatasync(int fd) { REFUSE(fd) return NEXT(fdatasync)(fd); }

int ftruncate(int fd, off_t size) { REFUSE(fd) return NEXT(ftruncate)(fd, size); }

int ftruncate64(int fd, off64_t size) { REFUSE(fd) return NEXT(ftruncate64)(fd, size); }

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int code = NEXT(clock_gettime)(clock, now);
    if (clock == CLOCK_REALTIME)
        now->tv_sec += shift;
    return code;
}

time_t time(time_t *now)
{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now)
        *now = found.tv_sec;
    return found.tv_sec;
}
