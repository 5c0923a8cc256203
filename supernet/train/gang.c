#include "supernet/train/gang.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "supernet/net/internal.h"
#include "supernet/train/methods.h"
#include "supernet/train/plans.h"

/* About so many buckets a step, none smaller than this: each costs a round of messages. */
enum { BUCKETS = 8, BUCKET_LEAST = 8192, BUCKETS_MAX = BUCKETS + 2 };

typedef struct bucket {
    int first, count; /* parameters, in g->order */
    int pieces;       /* that they are, from g->pieces + first on */
    uint32_t ready;   /* kernels of the last pass after which it may leave */
} bucket;

typedef struct proposal {
    uint64_t step, seed;
    uint32_t stop, size;
} proposal;

struct sn_gang {
    kn_collective *c;
    int rank, size;
    bool own_subnets;
    /* The step. */
    int rehearsing; /* 1 + the rank whose passes are heard; 0: none */
    int passes, pass;
    uint8_t *touched; /* by parameter */
    int *seen;        /* by parameter: 1 + the last pass that reaches it */
    kn_box *box;      /* by parameter: what is touched */
    kn_param *order;  /* those touched, as they leave */
    kn_piece *pieces; /* of them, in the same order */
    bucket buckets[BUCKETS_MAX];
    int n_order, n_buckets, launched;
    uint32_t *last;               /* by parameter: kn_plan_grad_steps */
    uint32_t points[BUCKETS_MAX]; /* of the last pass */
    float *flat;
    uint32_t kernels; /* of the last pass */
    bool warming;     /* the device: plans and their points are recorded, nothing leaves */
    sn_gang_numbers numbers;
};

kn_collective *sn_gang_collective(const sn_gang *g) { return g->c; }
bool sn_gang_rehearses(const sn_gang *g) { return g->rehearsing > 0; }

static uint64_t seed_of(uint64_t seed, const char *what, int rank)
{
    char label[48];
    if (rank == 0)
        return seed;
    snprintf(label, sizeof label, "%s of rank %d", what, rank);
    return es_seed_derive(seed, label);
}

uint64_t sn_gang_subnet_seed(const sn_gang *g, uint64_t seed)
{
    return g->own_subnets ? seed_of(seed, "subnets", g->rehearsing > 0 ? g->rehearsing - 1 : g->rank) : seed;
}

uint64_t sn_gang_noise_seed(const sn_gang *g, uint64_t seed) { return seed_of(seed, "noise", g->rank); }

void sn_gang_destroy(sn_gang **gp)
{
    sn_gang *g = *gp;
    if (!g)
        return;
    free(g->touched);
    free(g->seen);
    free(g->box);
    free(g->pieces);
    free(g->order);
    free(g->last);
    free(g);
    *gp = NULL;
}

es_status sn_trainer_join(sn_trainer *t, kn_collective *c, es_error *err)
{
    sn_gang_destroy(&t->gang);
    sn_plans_forget(t->plans); /* a rank's share of a batch is another shape */
    t->warm = false;
    if (!c)
        return sn_loader_share(t->loader, 0, 1, err);
    int rank = kn_collective_rank(c), size = kn_collective_size(c);
    ES_RETURN(sn_loader_share(t->loader, rank, size, err));
    ES_RETURN(kn_collective_reserve(c, kn_params_elements(sn_net_params(t->net)), err));
    sn_gang *g = es_xcalloc(1, sizeof *g);
    size_t n = (size_t)kn_params_count(sn_net_params(t->net));
    g->c = c;
    g->rank = rank;
    g->size = size;
    g->own_subnets = t->file->supernet.own_subnets;
    g->touched = es_xcalloc(n, sizeof *g->touched);
    g->seen = es_xcalloc(n, sizeof *g->seen);
    g->box = es_xcalloc(n, sizeof *g->box);
    g->pieces = es_xcalloc(n, sizeof *g->pieces);
    g->order = es_xcalloc(n, sizeof *g->order);
    g->last = es_xcalloc(n, sizeof *g->last);
    t->gang = g;
    return ES_OK;
}

sn_gang_numbers sn_trainer_gang_numbers(const sn_trainer *t)
{
    return t->gang ? t->gang->numbers : (sn_gang_numbers){0};
}

/* ---- what the step will touch ---- */

static void widen(kn_box *box, const kn_box *by, bool first)
{
    if (first) {
        *box = *by;
        return;
    }
    for (int i = 0; i < KN_RANK_MAX; i++) {
        int32_t end = box->start[i] + box->extent[i], other = by->start[i] + by->extent[i];
        box->start[i] = box->start[i] < by->start[i] ? box->start[i] : by->start[i];
        box->extent[i] = (end > other ? end : other) - box->start[i];
    }
}

static uint32_t note_op(sn_walk *w, const sn_op *op)
{
    sn_trainer *t = w->ctx;
    sn_gang *g = t->gang;
    sn_slice slices[SN_OP_SLICES_MAX];
    int n = sn_net_op_slices(t->net, op, slices);
    for (int i = 0; i < n; i++) {
        kn_param id = slices[i].id;
        if (slices[i].set != KN_SET_WEIGHTS || !sn_modules_trains(t, KN_SET_WEIGHTS, id))
            continue;
        widen(&g->box[id], &slices[i].box, !g->touched[id]);
        g->touched[id] = 1;
        g->seen[id] = g->pass + 1 > g->seen[id] ? g->pass + 1 : g->seen[id];
    }
    return 0;
}

es_status sn_gang_note(sn_trainer *t, const sr_arch *a, es_error *err)
{
    sn_walk w = {.space = sn_net_space(t->net), .arch = a, .emit = note_op, .ctx = t, .unit_flags = t->unit_flags};
    ES_RETURN(sn_walk_run(&w, err));
    t->gang->pass++;
    return ES_OK;
}

/* In the order in which they leave: what the last pass does not reach, then the rest from the end of the network. */
static int64_t order_params(sn_trainer *t)
{
    sn_gang *g = t->gang;
    const kn_params *params = sn_net_params(t->net);
    int64_t total = 0;
    g->n_order = 0;
    for (int late = 0; late < 2; late++)
        for (kn_param id = kn_params_count(params) - 1; id >= 0; id--) {
            if (!g->touched[id] || (g->seen[id] == g->passes) != late)
                continue;
            g->order[g->n_order] = id;
            g->pieces[g->n_order] = kn_piece_of(kn_params_def(params, id), &g->box[id]);
            total += g->pieces[g->n_order++].count;
        }
    return total;
}

static void fill_buckets(sn_gang *g, int64_t total)
{
    int64_t least = total / BUCKETS > BUCKET_LEAST ? total / BUCKETS : BUCKET_LEAST, held = 0;
    g->n_buckets = 0;
    for (int i = 0; i < g->n_order; i++) {
        /* What waits for no kernel does not share a bucket with what does. */
        bool turn = i > 0 && (g->seen[g->order[i]] == g->passes) != (g->seen[g->order[i - 1]] == g->passes);
        if (i == 0 || held >= least || turn) {
            ES_ASSERT(g->n_buckets < BUCKETS_MAX);
            g->buckets[g->n_buckets++] = (bucket){.first = i};
            held = 0;
        }
        g->buckets[g->n_buckets - 1].count++;
        held += g->pieces[i].count;
    }
}

/* Does the whole parameter `low` end where the piece of another begins, but for padding? */
static bool adjoins(const kn_param_def *low, const kn_piece *below, const kn_piece *above)
{
    int64_t end = (low->offset + low->count + KN_PARAM_ALIGN - 1) / KN_PARAM_ALIGN * KN_PARAM_ALIGN;
    return below->count == low->count && above->extent[0] == above->count && above->offset == end &&
           end - low->offset + above->count <= INT32_MAX;
}

/* Whole parameters side by side become one piece with the padding between them, which is zero on every rank: long pieces need no packing. */
static void join_pieces(sn_trainer *t, bucket *b)
{
    sn_gang *g = t->gang;
    kn_piece *p = g->pieces + b->first;
    b->pieces = 0;
    for (int i = 0; i < b->count; i++) {
        const kn_param_def *d = kn_params_def(sn_net_params(t->net), g->order[b->first + i]);
        kn_piece *before = b->pieces > 0 ? &p[b->pieces - 1] : NULL;
        if (before && adjoins(d, &p[i], before)) {
            before->count += before->offset - d->offset;
            before->extent[0] = (int32_t)before->count;
            before->offset = d->offset;
        } else {
            p[b->pieces++] = p[i];
        }
    }
}

es_status sn_gang_begin(sn_trainer *t, uint64_t step, es_error *err)
{
    sn_gang *g = t->gang;
    es_status s = ES_OK;
    int n = kn_params_count(sn_net_params(t->net)), ranks = g->own_subnets ? g->size : 1;
    memset(g->touched, 0, (size_t)n * sizeof *g->touched);
    memset(g->seen, 0, (size_t)n * sizeof *g->seen);
    for (int r = 0; r < ranks && s == ES_OK; r++) {
        g->pass = 0;
        g->rehearsing = r + 1;
        s = t->method->step(t, step, err);
        g->passes = g->pass;
    }
    g->rehearsing = 0;
    g->pass = 0;
    g->launched = 0;
    g->warming = t->warming;
    ES_RETURN(s);
    g->flat = kn_weights_grads(t->weights);
    int64_t total = order_params(t);
    fill_buckets(g, total);
    int64_t pieces = 0;
    for (int i = 0; i < g->n_buckets; i++) {
        join_pieces(t, &g->buckets[i]);
        pieces += g->buckets[i].pieces;
    }
    if (g->warming)
        return ES_OK;
    g->numbers.steps++;
    g->numbers.elements += total;
    g->numbers.pieces += pieces;
    g->numbers.buckets += g->n_buckets;
    return ES_OK;
}

/* ---- the passes ---- */

static es_status launch_ready(void *ctx, uint32_t kernels_done, es_error *err)
{
    sn_gang *g = ctx;
    while (g->launched < g->n_buckets && !g->warming && g->buckets[g->launched].ready <= kernels_done) {
        const bucket *b = &g->buckets[g->launched++];
        g->numbers.early += kernels_done < g->kernels;
        ES_RETURN(kn_collective_reduce(g->c, g->flat, g->pieces + b->first, b->pieces, 1.0f / (float)g->size, err));
    }
    return ES_OK;
}

/* After how many kernels of the last pass each bucket may leave, and not before those that leave before it. */
static void find_points(sn_gang *g, kn_binding *b)
{
    uint32_t ready = 0;
    b->n_points = 0;
    for (int i = 0; i < g->n_buckets; i++) {
        bucket *k = &g->buckets[i];
        for (int j = k->first; j < k->first + k->count; j++)
            ready = g->last[g->order[j]] > ready ? g->last[g->order[j]] : ready;
        k->ready = ready;
        if (i == 0 || ready > g->points[b->n_points - 1])
            g->points[b->n_points++] = ready;
    }
    b->points = g->points;
    b->after = launch_ready;
    b->after_ctx = g;
}

es_status sn_gang_pass(sn_trainer *t, const kn_plan *plan, kn_binding *b, es_error *err)
{
    sn_gang *g = t->gang;
    const kn_params *params = sn_net_params(t->net);
    kn_plan_grad_steps(plan, KN_SET_WEIGHTS, g->last);
    for (kn_param id = 0; id < kn_params_count(params); id++) /* else the ranks would drift apart in silence */
        if (g->last[id] > 0 && !g->touched[id])
            return es_fail(err, ES_INVALID, kn_params_def(params, id)->name,
                           "gets a gradient, but the walk of the network does not name it: this space cannot be "
                           "trained by a gang");
    if (++g->pass < g->passes)
        return ES_OK;
    g->kernels = (uint32_t)kn_plan_steps(plan);
    find_points(g, b);
    return ES_OK;
}

es_status sn_gang_end(sn_trainer *t, es_error *err)
{
    sn_gang *g = t->gang;
    ES_RETURN(launch_ready(g, UINT32_MAX, err));
    return g->warming ? ES_OK : kn_collective_join(g->c, err);
}

/* ---- together ---- */

es_status sn_gang_propose(sn_trainer *t, bool stop, es_error *err)
{
    const proposal mine = {.step = t->step, .seed = t->seed, .stop = stop, .size = (uint32_t)t->gang->size};
    return kn_collective_gather_begin(t->gang->c, &mine, sizeof mine, err);
}

es_status sn_gang_agree(sn_trainer *t, bool *stop, es_error *err)
{
    sn_gang *g = t->gang;
    proposal *all = es_xcalloc((size_t)g->size, sizeof *all);
    es_status s = kn_collective_gather_end(g->c, all, err);
    *stop = false;
    for (int r = 0; r < g->size && s == ES_OK; r++) {
        *stop |= all[r].stop != 0;
        if (all[r].step != all[0].step || all[r].seed != all[0].seed)
            s = es_fail(err, ES_CORRUPT, "gang", "rank 0 took step %" PRIu64 ", rank %d step %" PRIu64, all[0].step, r,
                        all[r].step);
    }
    free(all);
    return s;
}

es_status sn_gang_over(sn_trainer *t, es_error *err)
{
    sn_gang *g = t->gang;
    double *all = es_xcalloc((size_t)g->size, sizeof *all), sum = 0;
    es_status s = kn_collective_gather(g->c, &t->loss_sum, sizeof t->loss_sum, all, err);
    for (int r = 0; r < g->size; r++)
        sum += all[r];
    free(all);
    ES_RETURN(s);
    t->loss_sum = sum / g->size;
    return kn_collective_check(g->c, err);
}

es_status sn_gang_failed(sn_gang *g, es_status s, es_error *err)
{
    es_error first;
    if (kn_collective_check(g->c, &first) == ES_OK) {
        kn_collective_abort(g->c);
        return s;
    }
    if (err != NULL)
        *err = first;
    return first.code;
}
