// SPDX-License-Identifier: Apache-2.0
//
// Lets a process have a clock of its own: preloaded, it adds to the time of day the seconds that stand in the file
// that CLOCK_AHEAD names (an int64_t), whenever somebody writes another number there. Only what tells the time is
// changed, nothing that waits. (libfaketime reads its file anew without a lock: a process with threads may crash.)

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead;

__attribute__((constructor)) static void find(void)
{
    const char *path = getenv("CLOCK_AHEAD");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *seconds = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (seconds != MAP_FAILED)
        ahead = seconds;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *ahead;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec real;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &real);
    if (!failed)
        *now = (struct timeval){.tv_sec = real.tv_sec, .tv_usec = real.tv_nsec / 1000};
    return failed;
}

time_t time(time_t *now)
{
    struct timespec real;
    if (clock_gettime(CLOCK_REALTIME, &real))
        return -1;
    if (now)
        *now = real.tv_sec;
    return real.tv_sec;
}
