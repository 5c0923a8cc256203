#include "base/clock.h"

#include <time.h>

static int64_t system_mono_ns(es_clock *c)
{
    (void)c;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t system_wall_ms(es_clock *c)
{
    (void)c;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

es_clock *es_clock_system(void)
{
    static es_clock system_clock = {system_mono_ns, system_wall_ms};
    return &system_clock;
}
