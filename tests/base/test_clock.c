#include "base/clock.h"

#include <time.h>

#include "tests/check_main.h"

START_TEST(system_clock)
    {
        es_clock *c = es_clock_system();
        int64_t last = es_clock_mono_ns(c);
        for (int i = 0; i < 10000; i++) {
            int64_t now = es_clock_mono_ns(c);
            ck_assert_int_ge(now, last);
            last = now;
        }
        int64_t s = (int64_t)time(NULL), wall = es_clock_wall_ms(c);
        ck_assert_int_ge(wall, s * 1000);
        ck_assert_int_le(wall, (s + 5) * 1000);
        ck_assert_int_ge(es_clock_mono_ms(c), last / 1000000);
        int64_t steady = es_clock_steady_ms();
        ck_assert_int_ge(steady, s * 1000);
        ck_assert_int_le(steady, (s + 5) * 1000);
        ck_assert_int_ge(es_clock_steady_ms(), steady);
    }
END_TEST

static int64_t fake_mono(es_clock *c)
{
    (void)c;
    return 5000000;
}
static int64_t fake_wall(es_clock *c)
{
    (void)c;
    return 77;
}

START_TEST(can_be_owned)
    {
        es_clock fake = {fake_mono, fake_wall};
        ck_assert_int_eq(es_clock_mono_ms(&fake), 5);
        ck_assert_int_eq(es_clock_wall_ms(&fake), 77);
    }
END_TEST

ES_TEST_MAIN("base/clock", system_clock, can_be_owned)
