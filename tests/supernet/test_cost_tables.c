/* The cost model against every published table: parameters and multiply-adds to the last one. */
#include <inttypes.h>
#include <time.h>

#include "base/file.h"
#include "supernet/space/space.h"
#include "tests/check_main.h"

typedef struct csv {
    char *data, *next;
    int columns;
    char *column[32];
} csv;

/* The next line cut at its commas; false at the end. */
static bool csv_next(csv *c)
{
    if (!c->next || !*c->next)
        return false;
    char *line = c->next, *end = strchr(line, '\n');
    c->next = end ? end + 1 : NULL;
    if (end)
        *end = 0;
    c->columns = 0;
    for (char *p = line; p && c->columns < 32; c->columns++) {
        c->column[c->columns] = p;
        p = strchr(p, ',');
        if (p)
            *p++ = 0;
    }
    return true;
}

static void csv_open(csv *c, const char *path)
{
    memset(c, 0, sizeof *c);
    ck_assert_ok(es_file_read(path, 64 << 20, &c->data, NULL, NULL));
    c->next = c->data;
    ck_assert(csv_next(c)); /* the header */
}

static sn_space *load(const char *name)
{
    sn_space *sp = NULL;
    es_error err = {0};
    ck_assert_ok_err(sn_space_load(es_test_source(name), &sp, &err), &err);
    return sp;
}

static sn_cost cost_of(const sn_space *sp, sr_arch *a, const char *text)
{
    sn_cost c;
    es_error err = {0};
    ck_assert_ok_err(sn_arch_parse(sp, text, a, &err), &err);
    ck_assert_ok_err(sn_space_cost(sp, a, &c, &err), &err);
    return c;
}

START_TEST(nas_bench_201)
    {
        const char *path = es_test_shared("data/nas/nas_bench_201.csv");
        ES_TEST_NEEDS(path);
        sn_space *sp = load("examples/spaces/nas-bench-201.yaml");
        sr_arch *a = sr_arch_new(sn_space_choices(sp));
        csv c;
        int rows = 0;
        clock_t t0 = clock();
        for (csv_open(&c, path); csv_next(&c); rows++) {
            sn_cost cost = cost_of(sp, a, c.column[1]);
            char mflops[32];
            snprintf(mflops, sizeof mflops, "%.5f", (double)cost.macs / 1e6);
            ck_assert_msg(cost.params == strtoll(c.column[8], NULL, 10) && strcmp(mflops, c.column[9]) == 0,
                          "%s: %" PRId64 " params, %s MFLOPs; published %s, %s", c.column[1], cost.params, mflops,
                          c.column[8], c.column[9]);
            if (rows % 101 == 0) { /* the notation writes what it reads */
                char *text = sn_arch_format(sp, a);
                ck_assert_str_eq(text, c.column[1]);
                free(text);
            }
        }
        double seconds = (double)(clock() - t0) / CLOCKS_PER_SEC;
        ck_assert_int_eq(rows, 15625);
        printf("nas-bench-201: %d architectures in %.2f s\n", rows, seconds);
#ifndef ES_SANITIZE
        ck_assert_msg(seconds < 2, "%.2f s", seconds);
#endif
        free(c.data);
        free(a);
        sn_space_destroy(&sp);
    }
END_TEST

START_TEST(once_for_all)
    {
        const char *path = es_test_shared("data/nas/ofa_mbv3_measured.csv");
        ES_TEST_NEEDS(path);
        sn_space *sp = load("examples/spaces/ofa-mbv3.yaml");
        sr_arch *a = sr_arch_new(sn_space_choices(sp));
        csv c;
        int rows = 0;
        for (csv_open(&c, path); csv_next(&c); rows++) {
            char text[128];
            snprintf(text, sizeof text, "%s,%s,%s,%s", c.column[0], c.column[1], c.column[2], c.column[3]);
            sn_cost cost = cost_of(sp, a, text);
            ck_assert_msg(cost.params == strtoll(c.column[4], NULL, 10) && cost.macs == strtoll(c.column[5], NULL, 10),
                          "%s: %" PRId64 " params, %" PRId64 " macs; published %s, %s", text, cost.params, cost.macs,
                          c.column[4], c.column[5]);
        }
        ck_assert_int_eq(rows, 2223);
        free(c.data);
        free(a);
        sn_space_destroy(&sp);
    }
END_TEST

START_TEST(attentivenas)
    {
        const char *path = es_test_shared("data/nas/attentivenas_models.csv");
        ES_TEST_NEEDS(path);
        sn_space *sp = load("examples/spaces/attentivenas.yaml");
        sr_arch *a = sr_arch_new(sn_space_choices(sp));
        csv c;
        int rows = 0;
        for (csv_open(&c, path); csv_next(&c); rows++) {
            char text[256];
            snprintf(text, sizeof text, "%s,%s,%s,%s,%s", c.column[1], c.column[2], c.column[3], c.column[4],
                     c.column[5]);
            sn_cost cost = cost_of(sp, a, text);
            ck_assert_int_eq((cost.macs + 500000) / 1000000, strtoll(c.column[6], NULL, 10));
            char *back = sn_arch_format(sp, a);
            ck_assert_str_eq(back, text);
            free(back);
        }
        ck_assert_int_eq(rows, 7);
        free(c.data);
        free(a);
        sn_space_destroy(&sp);
    }
END_TEST

/* The table's parameter count takes the ops of the normal cell for the reduction cells and the other way round (the accuracies do not): so the row is read with the two swapped. */
START_TEST(entangled_cell)
    {
        const char *path = es_test_shared("data/nas/entangled_cell_fashion_mnist.csv");
        ES_TEST_NEEDS(path);
        sn_space *sp = load("examples/spaces/entangled-cell.yaml");
        sr_arch *a = sr_arch_new(sn_space_choices(sp));
        csv c;
        int rows = 0;
        for (csv_open(&c, path); csv_next(&c); rows++) {
            char text[256];
            snprintf(text, sizeof text, "%s,%s,%s,%s,%s,%s", c.column[3], c.column[4], c.column[5], c.column[0],
                     c.column[1], c.column[2]);
            ck_assert_int_eq(cost_of(sp, a, text).params, strtoll(c.column[8], NULL, 10));
        }
        ck_assert_int_eq(rows, 4096);
        free(c.data);
        free(a);
        sn_space_destroy(&sp);
    }
END_TEST

/* No count is published: every row must be an architecture of the space, and the sizes follow the description by hand. */
START_TEST(entangled_conv)
    {
        const char *path = es_test_shared("data/nas/entangled_conv_cifar10.csv");
        ES_TEST_NEEDS(path);
        sn_space *sp = load("examples/spaces/entangled-conv.yaml");
        sr_arch *a = sr_arch_new(sn_space_choices(sp));
        csv c;
        int rows = 0;
        for (csv_open(&c, path); csv_next(&c); rows++) {
            int v[8];
            char text[64];
            for (int i = 0; i < 8; i++)
                v[i] = (int)strtol(c.column[i], NULL, 10);
            snprintf(text, sizeof text, "%d,%d,%d,%d,%d,%d,%d,%d", v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
            int64_t params = 9216 * 256 + 256 + 256 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10,
                    macs = 9216 * 256 + 256 * 128 + 128 * 64 + 640;
            int in = 3;
            static const int size[] = {32, 32, 16, 8};
            for (int i = 0; i < 4; in = v[i++]) {
                params += in * v[i] * v[4 + i] * v[4 + i] + v[i];
                macs += (int64_t)in * v[i] * v[4 + i] * v[4 + i] * size[i] * size[i];
            }
            params += in * 256 * 49 + 256;
            macs += (int64_t)in * 256 * 49 * 36;
            sn_cost cost = cost_of(sp, a, text);
            ck_assert_int_eq(cost.params, params);
            ck_assert_int_eq(cost.macs, macs);
        }
        ck_assert_int_eq(rows, 6561);
        free(c.data);
        free(a);
        sn_space_destroy(&sp);
    }
END_TEST

ES_TEST_MAIN("cost_tables", nas_bench_201, once_for_all, attentivenas, entangled_cell, entangled_conv)
