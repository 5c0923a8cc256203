#include "supernet/train/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "supernet/train/links.h"

enum { CALIBRATE, SCORE, SCORE_LAST, PASSES, LINKS_MAX = 1024 };
_Static_assert((int)PASSES *(int)LINKS_MAX < (int)SN_LINK_PLANS_MAX, "the plans of a subnet are in the table at once");

typedef struct kept {
    int depth;         /* links before it */
    size_t at[2], end; /* of calibration, of scoring; in s->memory */
} kept;

struct sn_stream {
    kn_plan *(*plans)[PASSES]; /* by link of the subnet in hand; t->link_plans owns them */
    int room;
    void *swap[2], *memory; /* device: between two links of a batch; kept values */
    size_t swap_bytes, memory_bytes, keep_bytes;
    kept *stack;
    int kept_n, first_kept; /* from first_kept on: to be filled by this subnet */
    sn_batches batches[2];
    sn_split split;
    const sn_link *links; /* of the subnet in hand, as are arch and flags */
    const sr_arch *arch;
    const uint8_t *flags;
    int n, from;     /* links; the first that is computed */
    es_hash *prefix; /* of the subnet before */
    int prefix_n;
    int64_t links_run;
};

sn_batches sn_batches_make(int64_t samples, int most)
{
    sn_batches b = {.samples = samples};
    if (samples < 1)
        return b;
    b.count = (samples + most - 1) / most;
    b.size = (int)((samples + b.count - 1) / b.count);
    b.count = (samples + b.size - 1) / b.size;
    b.last = (int)(samples - (b.count - 1) * b.size);
    return b;
}

void sn_stream_destroy(sn_stream **sp, kn_device *dev)
{
    sn_stream *s = *sp;
    if (!s)
        return;
    for (int i = 0; i < 2; i++)
        kn_device_free(dev, s->swap[i]);
    kn_device_free(dev, s->memory);
    free(s->plans);
    free(s->stack);
    free(s->prefix);
    free(s);
    *sp = NULL;
}

size_t sn_stream_bytes(const sn_stream *s) { return s ? 2 * s->swap_bytes + s->memory_bytes : 0; }

es_status sn_stream_begin(sn_trainer *t, const sn_batches *calibration, const sn_batches *scoring, sn_split split,
                          size_t keep_bytes, es_error *err)
{
    if (!t->stream)
        t->stream = es_xcalloc(1, sizeof *t->stream);
    sn_stream *s = t->stream;
    s->batches[CALIBRATE] = *calibration;
    s->batches[SCORE] = *scoring;
    s->split = split;
    s->kept_n = s->first_kept = s->prefix_n = 0;
    s->links_run = 0;
    s->keep_bytes = 0;
    if (keep_bytes <= s->memory_bytes) {
        s->keep_bytes = keep_bytes;
        return ES_OK;
    }
    ES_RETURN(kn_device_sync(t->dev, err));
    kn_device_free(t->dev, s->memory);
    s->memory = NULL;
    s->memory_bytes = 0;
    es_error none;
    if (kn_device_alloc(t->dev, keep_bytes, &s->memory, &none) ==
        ES_OK) /* else nothing is kept, and all is run again */
        s->keep_bytes = s->memory_bytes = keep_bytes;
    return ES_OK;
}

static void make_room(sn_stream *s, int n)
{
    if (n <= s->room)
        return;
    s->plans = es_xrealloc(s->plans, (size_t)n * sizeof *s->plans);
    memset(s->plans + s->room, 0, (size_t)(n - s->room) * sizeof *s->plans);
    s->prefix = es_xrealloc(s->prefix, (size_t)n * sizeof *s->prefix);
    s->stack = es_xrealloc(s->stack, ((size_t)n + 1) * sizeof *s->stack);
    s->room = n;
}

static size_t link_bytes(const sn_trainer *t, const sn_link *l, int64_t samples)
{
    kn_shape shape = l->out;
    size_t one = kn_kept_bytes(sn_trainer_precision(t), &shape);
    return (one * (size_t)samples + 255) / 256 * 256; /* whole units, so that every batch starts aligned */
}

/* All batches of a kind, each aligned. */
static size_t kept_bytes(const sn_trainer *t, const sn_link *l, const sn_batches *b)
{
    return link_bytes(t, l, b->size) * (size_t)b->count;
}

size_t sn_stream_kept_bytes(const sn_trainer *t, const sn_link *l, const sn_batches *calibration,
                            const sn_batches *scoring)
{
    return kept_bytes(t, l, calibration) + kept_bytes(t, l, scoring);
}

static es_status make_link(sn_trainer *t, const sr_arch *a, const uint8_t *flags, int k, const sn_link_key *key,
                           kn_plan **plan, es_error *err)
{
    sn_lower_options o = {.batch = key->batch,
                          .mode = key->calibrates ? SN_CALIBRATE : SN_INFER,
                          .unit_flags = flags,
                          .first = k,
                          .end = key->last ? 0 : k + 1};
    sn_lowered net;
    kn_graph_reset(t->graph);
    ES_RETURN(sn_net_lower(t->net, a, &o, t->graph, &net, err));
    if (key->last && !key->calibrates) {
        kn_val labels = kn_input(t->graph, SN_IN_LABELS, KN_SHAPE(kn_shape_of(t->graph, net.logits).d[0]), KN_I32);
        kn_val correct = kn_correct(t->graph, net.logits, labels);
        kn_output(t->graph, SN_OUT_CORRECT, kn_reduce_sum(t->graph, correct, KN_AXES_ALL));
        kn_output(t->graph, SN_OUT_LOSS,
                  kn_reduce_sum(t->graph, kn_cross_entropy(t->graph, net.logits, labels, 0), KN_AXES_ALL));
    }
    ES_RETURN(sn_trainer_plan_to(t, plan, false, err));
    kn_plan_trim(*plan);
    return ES_OK;
}

static es_status plan_link(sn_trainer *t, const sr_arch *a, const uint8_t *flags, int k, int pass, int batch,
                           es_error *err)
{
    sn_stream *s = t->stream;
    const sn_link_key key = {.unit = s->links[k].unit,
                             .batch = batch,
                             .calibrates = pass == CALIBRATE,
                             .first = k == 0,
                             .last = k + 1 == s->n,
                             .precision = (uint8_t)sn_trainer_precision(t)};
    sn_link_plan *p = sn_link_plans_at(t->link_plans, &key);
    if (!p->made)
        ES_RETURN(make_link(t, a, flags, k, &key, &p->plan, err));
    p->made = true;
    s->plans[k][pass] = p->plan;
    return sn_trainer_room(t, p->plan, err);
}

/* A pass is planned right before it is first queued: while the host plans scoring, a device works on calibration. */
static es_status plan_links(sn_trainer *t, int pass, int batch, es_error *err)
{
    sn_stream *s = t->stream;
    for (int k = s->from; k < s->n && batch > 0; k++)
        ES_RETURN(plan_link(t, s->arch, s->flags, k, pass, batch, err));
    return ES_OK;
}

static es_status reserve_swap(sn_trainer *t, es_error *err)
{
    sn_stream *s = t->stream;
    const sn_batches *c = &s->batches[CALIBRATE], *b = &s->batches[SCORE];
    size_t need = 0;
    for (int k = s->from; k < s->n; k++) {
        size_t bytes = link_bytes(t, &s->links[k], c->size > b->size ? c->size : b->size);
        need = bytes > need && k + 1 < s->n ? bytes : need;
    }
    if (need <= s->swap_bytes)
        return ES_OK;
    ES_RETURN(kn_device_sync(t->dev, err));
    s->swap_bytes = 0;
    for (int i = 0; i < 2; i++) {
        kn_device_free(t->dev, s->swap[i]);
        s->swap[i] = NULL;
        ES_RETURN(kn_device_alloc(t->dev, need, &s->swap[i], err));
    }
    s->swap_bytes = need;
    return ES_OK;
}

/* What the stack still has of this subnet's links; then room behind those of its own that are wanted, the deepest first. */
static void place_kept(sn_trainer *t, int shared, const bool *keep)
{
    sn_stream *s = t->stream;
    while (s->kept_n > 0 && s->stack[s->kept_n - 1].depth > shared)
        s->kept_n--;
    s->from = s->kept_n > 0 ? s->stack[s->kept_n - 1].depth : 0;
    s->first_kept = s->kept_n;
    size_t end = s->kept_n > 0 ? s->stack[s->kept_n - 1].end : 0, left = s->keep_bytes - end;
    int first = s->n;
    bool take[LINKS_MAX] = {false};
    for (int k = s->n - 2; keep && k >= s->from; k--) {
        size_t bytes = sn_stream_kept_bytes(t, &s->links[k], &s->batches[CALIBRATE], &s->batches[SCORE]);
        if (!keep[k] || bytes > left)
            continue;
        take[k] = true;
        left -= bytes;
        first = k;
    }
    for (int k = first; k + 1 < s->n; k++) {
        if (!take[k])
            continue;
        kept *e = &s->stack[s->kept_n++];
        e->depth = k + 1;
        e->at[CALIBRATE] = end;
        e->at[SCORE] = end + kept_bytes(t, &s->links[k], &s->batches[CALIBRATE]);
        e->end = end = e->at[SCORE] + kept_bytes(t, &s->links[k], &s->batches[SCORE]);
    }
}

es_status sn_stream_load(sn_trainer *t, const sr_arch *a, const uint8_t *flags, const sn_link *links, int n,
                         const bool *keep, es_error *err)
{
    sn_stream *s = t->stream;
    int shared = 0;
    if (n > LINKS_MAX)
        return es_fail(err, ES_UNSUPPORTED, "space", "%d units in a row: at most %d can be scored", n, LINKS_MAX);
    make_room(s, n);
    while (shared < n - 1 && shared < s->prefix_n && es_hash_equal(&s->prefix[shared], &links[shared].prefix))
        shared++;
    s->links = links;
    s->n = n;
    place_kept(t, shared, keep);
    for (int k = 0; k < n; k++)
        s->prefix[k] = links[k].prefix;
    s->prefix_n = n;
    s->links_run += n - s->from;
    s->arch = a;
    s->flags = flags;
    return reserve_swap(t, err);
}

/* The i-th batch of a kind from the first link that is not there yet to the last. */
static es_status run_batch(sn_trainer *t, int kind, int64_t i, int pass, kn_binding *bind, es_error *err)
{
    sn_stream *s = t->stream;
    const kept *next = s->stack + s->first_kept, *end = s->stack + s->kept_n;
    if (s->from > 0) {
        const kept *e = &s->stack[s->first_kept - 1];
        size_t step = link_bytes(t, &s->links[s->from - 1], s->batches[kind].size);
        bind->in[SN_IN_LINK] = (char *)s->memory + e->at[kind] + (size_t)i * step;
    }
    for (int k = s->from; k < s->n; k++) {
        void *out = s->swap[k & 1];
        if (next < end && next->depth == k + 1) {
            out = (char *)s->memory + next->at[kind] + (size_t)i * link_bytes(t, &s->links[k], s->batches[kind].size);
            next++;
        }
        bind->out[SN_OUT_LINK] = out;
        ES_RETURN(kn_run(s->plans[k][pass], t->ws, bind, err));
        bind->in[SN_IN_LINK] = out;
    }
    return ES_OK;
}

es_status sn_stream_calibrate(sn_trainer *t, kn_weights *weights, kn_weights *stats, es_error *err)
{
    const sn_batches *b = &t->stream->batches[CALIBRATE];
    ES_RETURN(plan_links(t, CALIBRATE, b->size, err));
    for (int64_t i = 0; i < b->count; i++) {
        sn_batch in;
        ES_RETURN(sn_loader_calibration(t->loader, i * b->size, b->size, &in, err));
        kn_binding bind = {
            .in = {[SN_IN_IMAGES] = in.images},
            .scalar = {[SN_SCALAR_BLEND] =
                           1.0f / (float)(i + 1)}, /* the first assigns, the n-th moves by 1/n: their average */
            .weights = {weights, stats},
            .seed = t->seed};
        ES_RETURN(run_batch(t, CALIBRATE, i, CALIBRATE, &bind, err));
    }
    return b->count > 0 ? kn_weights_changed(stats, err) : ES_OK;
}

es_status sn_stream_score(sn_trainer *t, kn_weights *weights, kn_weights *stats, float *scores, es_error *err)
{
    const sn_batches *b = &t->stream->batches[SCORE];
    ES_RETURN(plan_links(t, SCORE, b->size, err));
    ES_RETURN(plan_links(t, SCORE_LAST, b->last == b->size ? 0 : b->last, err));
    for (int64_t i = 0; i < b->count; i++) {
        bool last = i + 1 == b->count && b->last != b->size;
        sn_batch in;
        ES_RETURN(sn_loader_eval(t->loader, t->stream->split, i * b->size, last ? b->last : b->size, &in, err));
        kn_binding bind = {.in = {[SN_IN_IMAGES] = in.images, [SN_IN_LABELS] = in.labels},
                           .out = {[SN_OUT_CORRECT] = scores + 2 * i, [SN_OUT_LOSS] = scores + 2 * i + 1},
                           .weights = {weights, stats},
                           .seed = t->seed};
        ES_RETURN(run_batch(t, SCORE, i, last ? SCORE_LAST : SCORE, &bind, err));
    }
    return ES_OK;
}

int64_t sn_stream_links_run(const sn_trainer *t) { return t->stream->links_run; }
