/* clock.h - time as a small interface, so that a simulator can own it.
 *
 *     int64_t t0 = es_clock_mono_ns(clock);
 *
 * mono never goes back and is for intervals and leases; wall (Unix, ms) is for people and rows, and may jump.
 */
#ifndef ES_BASE_CLOCK_H
#define ES_BASE_CLOCK_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct es_clock es_clock;
struct es_clock {
    int64_t (*mono_ns)(es_clock *c);
    int64_t (*wall_ms)(es_clock *c);
};

es_clock *es_clock_system(void); /* shared, never freed */
/* Unix ms that never jump: the wall time of the first call plus what went by since. For the ages of rows that a jump of the clock must not end. */
int64_t es_clock_steady_ms(void);
static inline int64_t es_clock_mono_ns(es_clock *c) { return c->mono_ns(c); }
static inline int64_t es_clock_mono_ms(es_clock *c) { return c->mono_ns(c) / 1000000; }
static inline int64_t es_clock_wall_ms(es_clock *c) { return c->wall_ms(c); }

#ifdef __cplusplus
}
#endif
#endif
