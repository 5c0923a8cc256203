#include "base/clock.h"

#include <stdatomic.h>
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

int64_t es_clock_steady_ms(void)
{
    static _Atomic int64_t base; /* wall less mono; whoever is first sets it */
    int64_t mono = system_mono_ns(NULL) / 1000000, none = 0;
    if (atomic_load(&base) == 0)
        atomic_compare_exchange_strong(&base, &none, system_wall_ms(NULL) - mono);
    return atomic_load(&base) + mono;
}
