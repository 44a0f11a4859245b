/* A file system that is slow, as a library to preload: calls that name a file below $SLOW_BELOW wait.
 *
 *     gcc -shared -fPIC -O2 -o slowfiles.so benchmarks/slowfiles.c -ldl
 *     SLOW_BELOW=/shared/env SLOW_MICROSECONDS=200 SLOW_SERVER=/tmp/server LD_PRELOAD=./slowfiles.so ...
 *
 * Each such call keeps a server busy for SLOW_MICROSECONDS, one after the other: the file SLOW_SERVER is locked
 * meanwhile, by all processes that name it. Without SLOW_SERVER calls wait beside each other. Reading is not slowed
 * down, nor what the dynamic linker opens. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void slow(const char *path) {
    const char *below = getenv("SLOW_BELOW"), *wait = getenv("SLOW_MICROSECONDS"), *server = getenv("SLOW_SERVER");
    if (!below || !wait || !path || strncmp(path, below, strlen(below))) return;
    long microseconds = atol(wait);
    struct timespec pause = {microseconds / 1000000, microseconds % 1000000 * 1000};
    int (*really_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int lock = server ? really_open(server, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (lock >= 0) flock(lock, LOCK_EX);
    nanosleep(&pause, NULL);
    if (lock >= 0) close(lock);
}

#define REAL(type, name, ...) type (*really)(__VA_ARGS__) = dlsym(RTLD_NEXT, name)

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    slow(path);
    REAL(int, "open", const char *, int, ...);
    return really(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    slow(path);
    REAL(int, "open64", const char *, int, ...);
    return really(path, flags, mode);
}

FILE *fopen(const char *path, const char *mode) {
    slow(path);
    REAL(FILE *, "fopen", const char *, const char *);
    return really(path, mode);
}

FILE *fopen64(const char *path, const char *mode) {
    slow(path);
    REAL(FILE *, "fopen64", const char *, const char *);
    return really(path, mode);
}

int stat(const char *path, struct stat *found) {
    slow(path);
    REAL(int, "stat", const char *, struct stat *);
    return really(path, found);
}

int stat64(const char *path, struct stat64 *found) {
    slow(path);
    REAL(int, "stat64", const char *, struct stat64 *);
    return really(path, found);
}

int lstat(const char *path, struct stat *found) {
    slow(path);
    REAL(int, "lstat", const char *, struct stat *);
    return really(path, found);
}

int lstat64(const char *path, struct stat64 *found) {
    slow(path);
    REAL(int, "lstat64", const char *, struct stat64 *);
    return really(path, found);
}

ssize_t readlink(const char *path, char *buffer, size_t size) {
    slow(path);
    REAL(ssize_t, "readlink", const char *, char *, size_t);
    return really(path, buffer, size);
}

DIR *opendir(const char *path) {
    slow(path);
    REAL(DIR *, "opendir", const char *);
    return really(path);
}

int access(const char *path, int mode) {
    slow(path);
    REAL(int, "access", const char *, int);
    return really(path, mode);
}
