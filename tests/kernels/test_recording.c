/* Plans that repeat, on a processor that pretends to record: what is recorded when, and that a plan with a kernel which may not be recorded is given up after one attempt. */
#include "base/log.h"
#include "kernels/plan/plan_internal.h"
#include "tests/check_main.h"
#include "tests/kernels/harness.h"

static struct {
    bool now;                                    /* between record and recorded */
    int begun, made, replayed, forgotten, lines; /* lines: in the log */
    kn_plan *plan;
} tape;

static es_status pretend_record(kn_device *d, int points, es_error *err)
{
    (void)d, (void)points, (void)err;
    tape.now = true;
    tape.begun++;
    return ES_OK;
}

static es_status pretend_recorded(kn_device *d, void **recording, es_error *err)
{
    (void)d, (void)err;
    tape.now = false;
    tape.made++;
    *recording = &tape;
    return ES_OK;
}

static es_status pretend_replay(kn_device *d, void *recording, es_error *err)
{
    (void)d;
    ck_assert_ptr_eq(recording, &tape);
    tape.replayed++;
    for (uint32_t i = 0; i < tape.plan->n_steps; i++)
        ES_RETURN(tape.plan->steps[i].run(&tape.plan->steps[i].call, err));
    return ES_OK;
}

static void pretend_forget(kn_device *d, void *recording)
{
    (void)d, (void)recording;
    tape.forgotten++;
}

static void pretend_reached(kn_device *d, void *recording, int point) { (void)d, (void)recording, (void)point; }

static kn_kernel real;
static es_status shy(const kn_call *c, es_error *err)
{
    return tape.now ? es_fail(err, ES_UNSUPPORTED, "shy", "may not be recorded") : real(c, err);
}

static void heard(void *ctx, es_log_level level, const char *line)
{
    (void)ctx, (void)level;
    tape.lines += strstr(line, "may not be recorded") != NULL;
}

static void run(kt_rig *r, int times)
{
    es_error err;
    for (int i = 0; i < times; i++) {
        memset(r->out[0], 0xff, sizeof(float) * 3);
        kt_ok(kn_run(r->plan, r->ws, &r->b, &err), &err);
        for (int k = 0; k < 3; k++)
            ck_assert_float_eq(r->out[0][k], 2 * (float)(k + 1));
    }
}

START_TEST(given_up_after_one_attempt)
    {
        es_error err;
        const float v[3] = {1, 2, 3};
        const kn_plan_options repeats = {.repeats = true};
        kt_rig *r = kt_open("cpu:1", NULL, NULL);
        kn_device_vt vt = *r->dev->vt;
        vt.record = pretend_record;
        vt.recorded = pretend_recorded;
        vt.replay = pretend_replay;
        vt.forget = pretend_forget;
        vt.reached = pretend_reached;
        const kn_device_vt *was = r->dev->vt;
        r->dev->vt = &vt;
        kn_output(r->g, 0, kn_scale(r->g, kt_input(r, 0, KN_SHAPE(3), v), 2));
        kt_run(r, false);
        kt_ok(kn_plan_make(r->dev, r->g, &repeats, &r->plan, &err), &err);
        tape.plan = r->plan;
        run(r, 5);
        ck_assert_int_eq(tape.begun, 1); /* on the second run; replayed from it on */
        ck_assert_int_eq(tape.replayed, 4);
        es_log_hook(heard, NULL);
        kt_ok(kn_plan_make(r->dev, r->g, &repeats, &r->plan, &err), &err);
        ck_assert_int_eq(tape.forgotten, 1);
        real = r->plan->steps[0].run;
        r->plan->steps[0].run = shy;
        run(r, 20);
        ck_assert_int_eq(tape.begun, 2); /* once more, and never again */
        ck_assert_int_eq(tape.replayed, 4);
        ck_assert_int_eq(tape.forgotten, 2);
        ck_assert_int_eq(tape.lines, 1);
        kt_ok(kn_plan_make(r->dev, r->g, &repeats, &r->plan, &err), &err); /* another plan in the same memory */
        run(r, 5);
        ck_assert_int_eq(tape.begun, 3);
        ck_assert_int_eq(tape.replayed, 8);
        es_log_hook(NULL, NULL);
        kn_plan_forget(r->plan);
        r->dev->vt = was;
        kt_close(&r);
    }
END_TEST

ES_TEST_MAIN("recording", given_up_after_one_attempt)
