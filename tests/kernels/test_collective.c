/* Ranks as processes of this test, on one host. */
#include "kernels/collective/collective.h"

#include <math.h>
#include <poll.h>

#include "base/clock.h"
#include "base/rng.h"
#include "tests/check_main.h"

enum { RANKS_MAX = 48, FEW = 4, ELEMENTS = 10007 };

typedef int (*rank_body)(int rank, int size, kn_collective *c);

typedef struct gang {
    int size;
    kn_gang_id id;
    kn_rendezvous *meet;
    pid_t pid[RANKS_MAX];
} gang;

static es_error err;

static kn_collective *join_gang(const gang *g, int rank, int64_t limit_ms)
{
    kn_device *dev;
    kn_collective *c = NULL;
    kn_collective_options o = {
        .rank = rank, .size = g->size, .id = &g->id, .meet = rank == 0 ? g->meet : NULL, .limit_ms = limit_ms};
    if (kn_device_open("cpu:1", &dev, &err) != ES_OK || kn_collective_open(dev, &o, &c, &err) != ES_OK)
        fprintf(stderr, "rank %d: %s\n", rank, err.text);
    return c;
}

static gang start_ranks(int size, int64_t limit_ms, rank_body body)
{
    gang g = {.size = size};
    ck_assert_ok_err(kn_rendezvous_open("127.0.0.1", &g.meet, &g.id, &err), &err);
    for (int r = 0; r < size; r++) {
        g.pid[r] = fork();
        if (g.pid[r] == 0) {
            kn_collective *c = join_gang(&g, r, limit_ms);
            int code = c == NULL ? 90 : body(r, size, c);
            kn_collective_close(&c);
            _exit(code);
        }
    }
    kn_rendezvous_close(&g.meet);
    return g;
}

/* The exit status, or 128 + the signal. */
static int ended(const gang *g, int rank)
{
    int st = 0;
    ck_assert_int_eq(waitpid(g->pid[rank], &st, 0), g->pid[rank]);
    return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

static void all_end_well(int size, rank_body body)
{
    gang g = start_ranks(size, 20000, body);
    for (int r = 0; r < size; r++)
        ck_assert_int_eq(ended(&g, r), 0);
}

static void fill(float *data, int rank, int round)
{
    es_rng r = es_rng_make((uint64_t)round, ES_USE_TEST, (uint64_t)rank);
    for (int i = 0; i < ELEMENTS; i++)
        data[i] = es_rng_normal(&r);
}

#define EXPECT(cond)                                                          \
    do {                                                                      \
        if (!(cond)) {                                                        \
            fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #cond, err.text); \
            return 1;                                                         \
        }                                                                     \
    } while (0)

/* Two boxes and one flat range out of the buffer; the rest must stay as it was. */
static int sums(int rank, int size, kn_collective *c)
{
    static float mine[ELEMENTS], other[ELEMENTS], before[ELEMENTS];
    const kn_param_def conv = {.offset = 64, .count = 16 * 5 * 5 * 8, .shape = {4, {16, 5, 5, 8, 1}}};
    const kn_param_def table = {.offset = 4096, .count = 40 * 30, .shape = {2, {40, 30, 1, 1, 1}}};
    const kn_param_def flat = {.offset = 8000, .count = 2007, .shape = {1, {2007, 1, 1, 1, 1}}};
    const kn_box boxes[] = {{{0, 1, 1, 0, 0}, {11, 3, 3, 6, 1}},
                            {{0, 0, 0, 0, 0}, {40, 17, 1, 1, 1}},
                            {{0, 0, 0, 0, 0}, {2007, 1, 1, 1, 1}}};
    const kn_piece pieces[] = {kn_piece_of(&conv, &boxes[0]), kn_piece_of(&table, &boxes[1]),
                               kn_piece_of(&flat, &boxes[2])};
    EXPECT(pieces[0].count == 11 * 9 * 6 && pieces[1].extent[0] == 17 && pieces[1].extent[1] == 40);
    for (int round = 0; round < 3; round++) {
        double sum[ELEMENTS] = {0}, size_of_sum = 0;
        for (int r = 0; r < size; r++) {
            fill(other, r, round);
            for (int i = 0; i < ELEMENTS; i++)
                sum[i] += (double)other[i] / size;
        }
        fill(mine, rank, round);
        memcpy(before, mine, sizeof mine);
        /* Two calls, as buckets: the second is queued while the first is under way. */
        EXPECT(kn_collective_reduce(c, mine, pieces, 2, 1.0f / (float)size, &err) == ES_OK);
        EXPECT(kn_collective_reduce(c, mine, pieces + 2, 1, 1.0f / (float)size, &err) == ES_OK);
        EXPECT(kn_collective_join(c, &err) == ES_OK);
        int touched = 0;
        for (int i = 0; i < ELEMENTS; i++) {
            int o = (i - 64) / 200, h = (i - 64) / 40 % 5, w = (i - 64) / 8 % 5, k = (i - 64) % 8;
            bool in = (i >= 64 && i < 64 + 3200 && o < 11 && h >= 1 && h < 4 && w >= 1 && w < 4 && k < 6) ||
                      (i >= 4096 && i < 4096 + 1200 && (i - 4096) % 30 < 17) || (i >= 8000 && i < 8000 + 2007);
            touched += in;
            size_of_sum += fabs(sum[i]);
            EXPECT(in ? fabs((double)mine[i] - sum[i]) < 1e-5 : mine[i] == before[i]);
        }
        EXPECT(touched == pieces[0].count + pieces[1].count + pieces[2].count && size_of_sum > 100);
    }
    /* Every rank has the same bits. */
    uint64_t hash = 1469598103934665603u, all[RANKS_MAX];
    for (size_t i = 8000 * sizeof(float); i < sizeof mine; i++)
        hash = (hash ^ ((const uint8_t *)mine)[i]) * 1099511628211u;
    EXPECT(kn_collective_gather(c, &hash, sizeof hash, all, &err) == ES_OK);
    for (int r = 0; r < size; r++)
        EXPECT(all[r] == hash);
    return 0;
}

START_TEST(sums_of_pieces)
    {
        for (int size = 1; size <= FEW; size++)
            all_end_well(size, sums);
    }
END_TEST

static int shares(int rank, int size, kn_collective *c)
{
    enum { BIG = (3 << 20) + 17 };
    uint8_t *big = malloc(BIG);
    uint32_t all[RANKS_MAX], mine = 100u + (uint32_t)rank;
    for (int i = 0; i < BIG; i++)
        big[i] = rank == 0 ? (uint8_t)(i * 7 + i / 251) : 0;
    EXPECT(kn_collective_broadcast(c, big, BIG, &err) == ES_OK);
    for (int i = 0; i < BIG; i++)
        EXPECT(big[i] == (uint8_t)(i * 7 + i / 251));
    EXPECT(kn_collective_gather_begin(c, &mine, sizeof mine, &err) == ES_OK);
    EXPECT(kn_collective_join(c, &err) == ES_OK); /* other calls may lie between */
    EXPECT(kn_collective_gather_end(c, all, &err) == ES_OK);
    for (int r = 0; r < size; r++)
        EXPECT(all[r] == 100u + (uint32_t)r);
    free(big);
    return 0;
}

START_TEST(broadcast_and_gather)
    {
        for (int size = 2; size <= FEW; size++)
            all_end_well(size, shares);
    }
END_TEST

/* More at once than rank 0 listens to at once. */
static int many(int rank, int size, kn_collective *c)
{
    float sum[64] = {(float)rank};
    uint32_t mine = (uint32_t)rank, all[RANKS_MAX];
    const kn_param_def d = {.count = 64, .shape = {1, {64, 1, 1, 1, 1}}};
    const kn_box box = {{0}, {64, 1, 1, 1, 1}};
    const kn_piece piece = kn_piece_of(&d, &box);
    EXPECT(kn_collective_gather(c, &mine, sizeof mine, all, &err) == ES_OK);
    for (int r = 0; r < size; r++)
        EXPECT(all[r] == (uint32_t)r);
    EXPECT(kn_collective_reduce(c, sum, &piece, 1, 1, &err) == ES_OK);
    EXPECT(kn_collective_join(c, &err) == ES_OK);
    EXPECT(sum[0] == (float)(size * (size - 1) / 2) && sum[1] == 0);
    return 0;
}

START_TEST(many_ranks_meet)
    {
        all_end_well(RANKS_MAX, many);
    }
END_TEST

static int64_t now_ms(void) { return es_clock_mono_ms(es_clock_system()); }

/* Reduces until something fails; the last rank dies in the middle. */
static int until_failure(int rank, int size, kn_collective *c)
{
    enum { BIG = 1 << 20 };
    float *data = calloc(BIG, sizeof *data);
    const kn_param_def d = {.count = BIG, .shape = {1, {BIG, 1, 1, 1, 1}}};
    const kn_box box = {{0}, {BIG, 1, 1, 1, 1}};
    const kn_piece piece = kn_piece_of(&d, &box);
    int64_t start = now_ms();
    for (int i = 0; now_ms() - start < 15000; i++) {
        es_status s = kn_collective_reduce(c, data, &piece, 1, 1, &err);
        if (rank == size - 1 && i == 5) /* its part of the sum is under way */
            raise(SIGKILL);
        if (s == ES_OK)
            s = kn_collective_join(c, &err);
        if (s == ES_OK)
            continue;
        return s == ES_LOST && kn_collective_check(c, &err) == ES_LOST ? 7 : 8;
    }
    return 9;
}

START_TEST(a_killed_rank_is_noticed_by_all)
    {
        for (int size = 2; size <= FEW; size++) {
            int64_t start = now_ms();
            gang g = start_ranks(size, 10000, until_failure);
            ck_assert_int_eq(ended(&g, size - 1), 128 + SIGKILL);
            for (int r = 0; r < size - 1; r++)
                ck_assert_int_eq(ended(&g, r), 7);
            ck_assert_int_lt(now_ms() - start, 5000); /* by its links, long before the limit */
        }
    }
END_TEST

/* Rank 1 meets rank 0 and dies while rank 2 is still awaited. */
START_TEST(a_rank_that_dies_while_meeting_is_noticed)
    {
        gang g = {.size = 3};
        int64_t start = now_ms();
        ck_assert_ok_err(kn_rendezvous_open("127.0.0.1", &g.meet, &g.id, &err), &err);
        for (int r = 0; r < 2; r++) {
            g.pid[r] = fork();
            if (g.pid[r] == 0) {
                signal(SIGALRM, SIG_DFL); /* the test library has a handler of its own */
                if (r == 1)
                    alarm(1);
                kn_collective *c = join_gang(&g, r, 20000);
                _exit(c == NULL && err.code == ES_LOST ? 0 : 1);
            }
        }
        ck_assert_int_eq(ended(&g, 1), 128 + SIGALRM);
        ck_assert_int_eq(ended(&g, 0), 0);
        ck_assert_int_lt(now_ms() - start, 5000);
        kn_rendezvous_close(&g.meet);
    }
END_TEST

/* Nothing is asked of the collective: its own thread sees that a neighbour went. */
static int idles(int rank, int size, kn_collective *c)
{
    (void)size;
    if (rank == 1)
        raise(SIGKILL);
    int64_t start = now_ms();
    while (kn_collective_check(c, &err) == ES_OK && now_ms() - start < 8000)
        poll(NULL, 0, 5);
    return kn_collective_check(c, &err) == ES_LOST ? 0 : 1;
}

START_TEST(a_lost_rank_is_noticed_without_asking)
    {
        gang g = start_ranks(3, 10000, idles);
        ck_assert_int_eq(ended(&g, 0), 0);
        ck_assert_int_eq(ended(&g, 2), 0);
        ck_assert_int_eq(ended(&g, 1), 128 + SIGKILL);
    }
END_TEST

/* Rank 1 stops without dying: only the limit helps. */
static int one_sleeps(int rank, int size, kn_collective *c)
{
    (void)size;
    if (rank == 1)
        raise(SIGSTOP);
    es_status s = kn_collective_barrier(c, &err);
    return s == ES_TIMEOUT || s == ES_LOST ? 0 : 1;
}

START_TEST(a_silent_rank_is_given_up)
    {
        gang g = start_ranks(3, 400, one_sleeps);
        ck_assert_int_eq(ended(&g, 0), 0);
        ck_assert_int_eq(ended(&g, 2), 0);
        kill(g.pid[1], SIGKILL);
        kill(g.pid[1], SIGCONT);
        ck_assert_int_eq(ended(&g, 1), 128 + SIGKILL);
    }
END_TEST

static int different_sizes(int rank, int size, kn_collective *c)
{
    (void)size;
    static float data[64];
    const kn_param_def d = {.count = 64, .shape = {1, {64, 1, 1, 1, 1}}};
    const kn_box box = {{0}, {rank == 0 ? 32 : 64, 1, 1, 1, 1}};
    const kn_piece piece = kn_piece_of(&d, &box);
    es_status s = kn_collective_reduce(c, data, &piece, 1, 1, &err);
    s = s == ES_OK ? kn_collective_join(c, &err) : s;
    return s == ES_CORRUPT || s == ES_LOST ? 0 : 1;
}

START_TEST(a_difference_is_an_error)
    {
        gang g = start_ranks(2, 5000, different_sizes);
        ck_assert_int_eq(ended(&g, 0), 0);
        ck_assert_int_eq(ended(&g, 1), 0);
    }
END_TEST

static bool at_once(void *ctx)
{
    (void)ctx;
    return true;
}

START_TEST(bad_ids_and_lonely_ranks_are_refused)
    {
        kn_device *dev;
        kn_collective *c = NULL;
        kn_rendezvous *meet = NULL;
        kn_gang_id id, wrong = {.n = 12};
        ck_assert_ok_err(kn_device_open("cpu:1", &dev, &err), &err);
        ck_assert_int_eq(kn_rendezvous_open("localhost", &meet, &id, &err), ES_INVALID);
        ck_assert_ok_err(kn_rendezvous_open("127.0.0.1", &meet, &id, &err), &err);
        kn_collective_options o = {.rank = 1, .size = 2, .id = &wrong, .limit_ms = 200};
        ck_assert_int_eq(kn_collective_open(dev, &o, &c, &err), ES_INVALID);
        o.id = &id;
        o.rank = 2;
        ck_assert_int_eq(kn_collective_open(dev, &o, &c, &err), ES_INVALID);
        o.rank = 0;
        ck_assert_int_eq(kn_collective_open(dev, &o, &c, &err), ES_INVALID); /* without its rendezvous */
        o.meet = meet;
        ck_assert_int_eq(kn_collective_open(dev, &o, &c, &err), ES_TIMEOUT);
        o.rank = 1;
        o.meet = NULL;
        ck_assert_int_eq(kn_collective_open(dev, &o, &c, &err), ES_TIMEOUT); /* rank 0 does not answer */
        o.limit_ms = 60000;
        o.stop = at_once;
        ck_assert_int_eq(kn_collective_open(dev, &o, &c, &err), ES_CANCELLED);
        ck_assert_ptr_null(c);
        kn_rendezvous_close(&meet);
        kn_device_close(&dev);
    }
END_TEST

/* Somebody who knows the address but not the key connects again and again, says something or nothing: the gang meets all the same. */
static int strange(int rank, int size, kn_collective *c)
{
    (void)rank, (void)size;
    return kn_collective_barrier(c, &err) == ES_OK ? 0 : 1;
}

START_TEST(strangers_do_not_get_in)
    {
        gang g = {.size = 2};
        ck_assert_ok_err(kn_rendezvous_open("127.0.0.1", &g.meet, &g.id, &err), &err);
        kn_gang_id forged = g.id;
        forged.data[12] ^= 1; /* in the key */
        for (int r = 0; r < 3; r++) {
            g.pid[r] = fork();
            if (g.pid[r] == 0) {
                gang mine = g;
                if (r == 2)
                    mine.id = forged;
                kn_collective *c = join_gang(&mine, r == 2 ? 1 : r, r == 2 ? 300 : 10000);
                int code = r == 2 ? (c == NULL ? 0 : 1) : c == NULL ? 90 : strange(r, 2, c);
                kn_collective_close(&c);
                _exit(code);
            }
        }
        for (int r = 0; r < 3; r++)
            ck_assert_int_eq(ended(&g, r), 0);
        kn_rendezvous_close(&g.meet);
    }
END_TEST

ES_TEST_MAIN("collective", sums_of_pieces, broadcast_and_gather, many_ranks_meet, a_killed_rank_is_noticed_by_all,
             a_rank_that_dies_while_meeting_is_noticed, a_lost_rank_is_noticed_without_asking,
             a_silent_rank_is_given_up, a_difference_is_an_error, bad_ids_and_lonely_ranks_are_refused,
             strangers_do_not_get_in)
