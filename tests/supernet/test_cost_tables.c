/* The cost model against every published table: parameters and multiply-adds to the last one. */
#include <inttypes.h>
#include <time.h>

#include "base/file.h"
#include "tests/check_main.h"
#include "tests/supernet/spaces.h"

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

static sn_cost cost_of(const sn_space *sp, sr_arch *a, const char *text)
{
    sn_cost c;
    es_error err = {0};
    ck_assert_ok_err(sn_arch_parse(sp, text, a, &err), &err);
    ck_assert_ok_err(sn_space_cost(sp, a, &c, &err), &err);
    return c;
}

/* Every row of data/nas/<file> of the shared data, as columns of text. */
typedef void check_row(const sn_space *sp, sr_arch *a, char **column, int row);

static void check_table(const char *file, const char *space, int rows, check_row *check)
{
    const char *path = es_test_shared(es_test_join("data/nas", file));
    ES_TEST_NEEDS(path);
    sn_space *sp = space_load(space);
    sr_arch *a = sr_arch_new(sn_space_choices(sp));
    csv c;
    int row = 0;
    for (csv_open(&c, path); csv_next(&c); row++)
        check(sp, a, c.column, row);
    ck_assert_int_eq(row, rows);
    free(c.data);
    free(a);
    sn_space_destroy(&sp);
}

/* n columns as a notation of columns: "a,b,c". */
static void join(char text[256], char **column, int n)
{
    size_t at = 0;
    for (int i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, 256 - at, "%s%s", i ? "," : "", column[i]);
}

/* The notation writes what it reads. */
static void check_notation(const sn_space *sp, const sr_arch *a, const char *text)
{
    char *back = sn_arch_format(sp, a);
    ck_assert_str_eq(back, text);
    free(back);
}

static void nas_bench_201_row(const sn_space *sp, sr_arch *a, char **column, int row)
{
    sn_cost cost = cost_of(sp, a, column[1]);
    char mflops[32];
    snprintf(mflops, sizeof mflops, "%.5f", (double)cost.macs / 1e6);
    ck_assert_msg(cost.params == strtoll(column[8], NULL, 10) && strcmp(mflops, column[9]) == 0,
                  "%s: %" PRId64 " params, %s MFLOPs; published %s, %s", column[1], cost.params, mflops, column[8],
                  column[9]);
    if (row % 101 == 0)
        check_notation(sp, a, column[1]);
}

START_TEST(nas_bench_201)
    {
        clock_t t0 = clock();
        check_table("nas_bench_201.csv", "nas-bench-201", 15625, nas_bench_201_row);
        double seconds = (double)(clock() - t0) / CLOCKS_PER_SEC;
        printf("nas-bench-201: all architectures in %.2f s\n", seconds);
#ifndef ES_SANITIZE
        ck_assert_msg(seconds < 2, "%.2f s", seconds);
#endif
    }
END_TEST

static void once_for_all_row(const sn_space *sp, sr_arch *a, char **column, int row)
{
    char text[256];
    (void)row;
    join(text, column, 4);
    sn_cost cost = cost_of(sp, a, text);
    ck_assert_msg(cost.params == strtoll(column[4], NULL, 10) && cost.macs == strtoll(column[5], NULL, 10),
                  "%s: %" PRId64 " params, %" PRId64 " macs; published %s, %s", text, cost.params, cost.macs, column[4],
                  column[5]);
}

START_TEST(once_for_all)
    {
        check_table("ofa_mbv3_measured.csv", "ofa-mbv3", 2223, once_for_all_row);
    }
END_TEST

static void attentivenas_row(const sn_space *sp, sr_arch *a, char **column, int row)
{
    char text[256];
    (void)row;
    join(text, column + 1, 5);
    ck_assert_int_eq((cost_of(sp, a, text).macs + 500000) / 1000000, strtoll(column[6], NULL, 10));
    check_notation(sp, a, text);
}

START_TEST(attentivenas)
    {
        check_table("attentivenas_models.csv", "attentivenas", 7, attentivenas_row);
    }
END_TEST

/* The table's parameter count takes the ops of the normal cell for the reduction cells and the other way round (the accuracies do not): so the row is read with the two swapped. */
static void entangled_cell_row(const sn_space *sp, sr_arch *a, char **column, int row)
{
    char text[256], *swapped[6] = {column[3], column[4], column[5], column[0], column[1], column[2]};
    (void)row;
    join(text, swapped, 6);
    ck_assert_int_eq(cost_of(sp, a, text).params, strtoll(column[8], NULL, 10));
}

START_TEST(entangled_cell)
    {
        check_table("entangled_cell_fashion_mnist.csv", "entangled-cell", 4096, entangled_cell_row);
    }
END_TEST

/* No count is published: every row must be an architecture of the space, and the sizes follow the description by hand. */
static void entangled_conv_row(const sn_space *sp, sr_arch *a, char **column, int row)
{
    static const int size[] = {32, 32, 16, 8};
    int v[8], in = 3;
    char text[256];
    (void)row;
    for (int i = 0; i < 8; i++)
        v[i] = (int)strtol(column[i], NULL, 10);
    join(text, column, 8);
    int64_t params = 9216 * 256 + 256 + 256 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10,
            macs = 9216 * 256 + 256 * 128 + 128 * 64 + 640;
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

START_TEST(entangled_conv)
    {
        check_table("entangled_conv_cifar10.csv", "entangled-conv", 6561, entangled_conv_row);
    }
END_TEST

ES_TEST_MAIN("cost_tables", nas_bench_201, once_for_all, attentivenas, entangled_cell, entangled_conv)
