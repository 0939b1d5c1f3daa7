// Put before libc with LD_PRELOAD: a clock that is CLOCK_OFFSET_S off, and an fsync that fails from the
// FSYNC_FAILS_AT-th call on.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long setting(const char *name) {
    const char *text = getenv(name);
    return text == NULL ? 0 : atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *found) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, found);
    if (result == 0 && clock == CLOCK_REALTIME) found->tv_sec += setting("CLOCK_OFFSET_S");
    return result;
}

int gettimeofday(struct timeval *restrict found, void *restrict zone) {
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    found->tv_sec = now.tv_sec;
    found->tv_usec = now.tv_nsec / 1000;
    return result;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found != NULL) *found = now.tv_sec;
    return now.tv_sec;
}

int fsync(int descriptor) {
    static int (*real)(int);
    static long calls;
    if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    long first = setting("FSYNC_FAILS_AT");
    if (first > 0 && ++calls >= first) {
        errno = EIO;
        return -1;
    }
    return real(descriptor);
}
