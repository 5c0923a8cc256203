/* Memory and calls, in one walk over the work graph: each step's tensors, in-place outputs, offsets in the workspace by best fit. */
#include <string.h>

#include "kernels/plan/plan_internal.h"

enum { UNIT = 256 };

static void insert_hole(kn_plan *p, uint32_t at, kn_hole h)
{
    kn_plan_room(&p->holes, &p->cap_holes, p->n_holes + 1, sizeof *p->holes);
    memmove(&p->holes[at + 1], &p->holes[at], (p->n_holes - at) * sizeof *p->holes);
    p->holes[at] = h;
    p->n_holes++;
}

static void remove_hole(kn_plan *p, uint32_t at)
{
    p->n_holes--;
    memmove(&p->holes[at], &p->holes[at + 1], (p->n_holes - at) * sizeof *p->holes);
}

/* The smallest hole that is large enough; else the end of the workspace, with the hole that touches it. */
static uint32_t take(kn_plan *p, uint32_t size)
{
    uint32_t best = UINT32_MAX, at;
    for (uint32_t i = 0; i < p->n_holes; i++)
        if (p->holes[i].size >= size && (best == UINT32_MAX || p->holes[i].size < p->holes[best].size))
            best = i;
    p->live_bytes += (size_t)size * UNIT;
    p->live_peak = p->live_bytes > p->live_peak ? p->live_bytes : p->live_peak;
    if (best != UINT32_MAX) {
        at = p->holes[best].start;
        p->holes[best].start += size;
        p->holes[best].size -= size;
        if (p->holes[best].size == 0)
            remove_hole(p, best);
        return at;
    }
    at = p->high;
    if (p->n_holes > 0 && p->holes[p->n_holes - 1].start + p->holes[p->n_holes - 1].size == p->high) {
        at = p->holes[p->n_holes - 1].start;
        p->n_holes--;
    }
    p->high = at + size;
    return at;
}

static void give(kn_plan *p, uint32_t start, uint32_t size)
{
    uint32_t lo = 0, hi = p->n_holes;
    p->live_bytes -= (size_t)size * UNIT;
    while (lo < hi) { /* first hole after start */
        uint32_t mid = (lo + hi) / 2;
        if (p->holes[mid].start < start)
            lo = mid + 1;
        else
            hi = mid;
    }
    bool left = lo > 0 && p->holes[lo - 1].start + p->holes[lo - 1].size == start;
    bool right = lo < p->n_holes && start + size == p->holes[lo].start;
    if (left) {
        p->holes[lo - 1].size += size;
        if (right) {
            p->holes[lo - 1].size += p->holes[lo].size;
            remove_hole(p, lo);
        }
    } else if (right) {
        p->holes[lo].start = start;
        p->holes[lo].size += size;
    } else {
        insert_hole(p, lo, (kn_hole){start, size});
    }
}

static es_status units_of(size_t bytes, uint32_t *units, es_error *err)
{
    size_t n = (bytes + UNIT - 1) / UNIT;
    if (n > UINT32_MAX / 2)
        return es_fail(err, ES_NO_MEMORY, "plan", "a value of %zu bytes is more than any device has", bytes);
    *units = (uint32_t)n;
    return ES_OK;
}

static void free_root(kn_plan *p, kn_val r)
{
    kn_plan_value *v = &p->values[r];
    if (v->size == 0)
        return;
    give(p, (uint32_t)(v->at.offset / UNIT), v->size);
    v->size = 0;
}

static void dense_strides(kn_tensor *t)
{
    int64_t step = 1;
    for (int i = t->shape.rank - 1; i >= 0; i--) {
        t->stride[i] = step;
        step *= t->shape.d[i];
    }
}

/* A value as a tensor without address, and where it will be. */
static kn_ref describe(const kn_plan *p, kn_val v, kn_val root, kn_tensor *t)
{
    const kn_node *n = kn_node_of(p->w, root);
    kn_ref ref = p->values[root].at;
    t->p = NULL;
    t->dtype = (kn_dtype)p->w->values[v].dtype;
    t->shape = p->w->values[v].shape;
    if (n->op != KN_OP_PARAM) {
        dense_strides(t);
        return ref;
    }
    int64_t offset = 0;
    kn_tensor slice = kn_plan_slice(p, &n->a, &offset);
    bool seen = kn_plan_view(&slice, &t->shape, t->stride);
    ES_ASSERT(seen); /* lowering made a dense copy of anything else */
    if (t->dtype == KN_BF16)
        ref.base = (uint8_t)(KN_BASE_SHADOW + n->a.set);
    ref.offset = offset * (int64_t)kn_dtype_bytes(t->dtype);
    return ref;
}

/* A slice of the parameter (BLEND) or gradient (ACCUMULATE) buffer as out[0]. */
static void write_slice(kn_plan *p, kn_step *s, int base, const kn_attr *a)
{
    int64_t offset = 0;
    s->call.n_out = 1;
    s->call.out[0] = kn_plan_slice(p, a, &offset);
    s->out[0] = (kn_ref){.base = (uint8_t)(base + a->set), .offset = offset * (int64_t)sizeof(float)};
}

static void place_sink(kn_plan *p, kn_step *s, const kn_node *n)
{
    if (n->op == KN_OP_ACCUMULATE) {
        write_slice(p, s, KN_BASE_GRADS, &n->a);
    } else if (n->op == KN_OP_BLEND) {
        write_slice(p, s, KN_BASE_VALUES, &n->a);
    } else if (n->op == KN_OP_OUTPUT) {
        s->call.n_out = 1;
        const kn_shape *shape = &s->call.in[0].shape;
        kn_dtype type = n->a.kept ? kn_kept_dtype(p->options.precision, shape) : KN_F32;
        s->call.out[0] = (kn_tensor){.dtype = type, .shape = *shape};
        dense_strides(&s->call.out[0]);
        s->out[0] = (kn_ref){.base = (uint8_t)(KN_BASE_OUT + n->a.slot)};
    }
}

/* An input whose memory output 0 may take over: it dies here, is as large, and no other input lies in it. */
static kn_val find_inplace(const kn_plan *p, uint32_t node, const kn_node *n, uint32_t size)
{
    unsigned may = p->options.no_fuse ? 0 : p->kernels[n->op].inplace;
    for (int k = 0; k < n->n_in && may != 0; k++) {
        if ((may >> k & 1) == 0 || n->in[k] == KN_NONE)
            continue;
        kn_val r = kn_plan_root(p, n->in[k]);
        const kn_plan_value *v = &p->values[r];
        bool fits = v->size == size && v->last == node && p->w->values[n->in[k]].dtype == p->w->values[n->out].dtype &&
                    kn_shape_equal(&p->w->values[n->in[k]].shape, &p->w->values[n->out].shape);
        for (int j = 0; j < n->n_in && fits; j++)
            fits = n->in[j] == KN_NONE || n->in[j] == n->in[k] || kn_plan_root(p, n->in[j]) != r;
        if (fits)
            return r;
    }
    return KN_NONE;
}

static es_status place_output(kn_plan *p, kn_step *s, uint32_t node, const kn_node *n, int k, es_error *err)
{
    kn_val o = n->out + (uint32_t)k, r = kn_plan_root(p, o);
    kn_plan_value *v = &p->values[o];
    kn_tensor *t = &s->call.out[k];
    *t = (kn_tensor){.dtype = (kn_dtype)p->w->values[o].dtype, .shape = p->w->values[o].shape};
    dense_strides(t);
    if (v->slice != KN_NONE) {
        int64_t offset = 0;
        const kn_attr *a = &kn_node_of(p->w, v->slice)->a;
        kn_tensor slice = kn_plan_slice(p, a, &offset);
        bool seen = kn_plan_view(&slice, &t->shape, t->stride);
        ES_ASSERT(seen);
        s->call.accumulate |= 1u << k;
        s->out[k] = (kn_ref){.base = (uint8_t)(KN_BASE_GRADS + a->set), .offset = offset * (int64_t)sizeof(float)};
        return ES_OK;
    }
    if (v->reads == 0 && (p->kernels[n->op].skip >> k & 1) != 0) {
        s->out[k] = (kn_ref){.base = KN_BASE_NONE};
        return ES_OK;
    }
    if (r == o && v->at.base == KN_BASE_NONE) {
        uint32_t size = 0;
        ES_RETURN(units_of((size_t)kn_shape_count(&t->shape) * kn_dtype_bytes(t->dtype), &size, err));
        kn_val into = k == 0 ? find_inplace(p, node, n, size) : KN_NONE;
        if (into != KN_NONE) {
            v->root = r = into;
            p->values[r].last = v->last > node ? v->last : node;
        } else {
            v->at = (kn_ref){.base = KN_BASE_WORKSPACE, .offset = (int64_t)take(p, size) * UNIT};
            v->size = size;
        }
    }
    if (v->added)
        s->call.accumulate |= 1u << k;
    s->out[k] = p->values[r].at;
    return ES_OK;
}

/* A call whose addresses are as aligned as they will be: every base is a multiple of UNIT. */
static es_status prepare(kn_step *s, kn_kernel kernel, es_error *err)
{
    for (int k = 0; k < s->call.n_in; k++)
        s->call.in[k].p = s->in[k].base == KN_BASE_NONE ? NULL : (char *)UNIT + s->in[k].offset;
    for (int k = 0; k < s->call.n_out; k++)
        s->call.out[k].p = s->out[k].base == KN_BASE_NONE ? NULL : (char *)UNIT + s->out[k].offset;
    s->call.scratch = (char *)UNIT;
    return kernel(&s->call, err);
}

static es_status place_node(kn_plan *p, uint32_t node, es_error *err)
{
    const kn_node *n = &p->w->nodes[node];
    const kn_kernel_row *row = &p->kernels[n->op];
    kn_plan_room(&p->steps, &p->cap_steps, p->n_steps + 1, sizeof *p->steps);
    kn_step *s = &p->steps[p->n_steps++];
    kn_val root[KN_IN_MAX];
    s->run = row->run;
    s->node = node;
    s->scratch = (kn_ref){.base = KN_BASE_NONE};
    s->call.a = &n->a;
    s->call.n_in = n->n_in;
    s->call.n_out = n->n_out;
    s->call.accumulate = 0;
    s->call.scratch = NULL;
    s->call.now = NULL;
    s->call.dev = p->dev;
    for (int k = 0; k < KN_IN_MAX; k++) {
        s->call.in[k].p = NULL;
        s->in[k] = (kn_ref){.base = KN_BASE_NONE};
    }
    for (int k = 0; k < n->n_in; k++) {
        root[k] = n->in[k] == KN_NONE ? KN_NONE : kn_plan_root(p, n->in[k]);
        s->call.in[k].shape.rank = 0;
        if (n->in[k] != KN_NONE && !(n->op == KN_OP_ACCUMULATE && k == 0))
            s->in[k] = describe(p, n->in[k], root[k], &s->call.in[k]);
    }
    for (int k = 0; k < KN_OUT_MAX; k++)
        s->call.out[k].p = NULL;
    for (int k = 0; k < n->n_out; k++)
        ES_RETURN(place_output(p, s, node, n, k, err));
    place_sink(p, s, n);
    size_t scratch = row->scratch == NULL ? 0 : row->scratch(&s->call);
    if (scratch > 0) {
        uint32_t size = 0;
        ES_RETURN(units_of(scratch, &size, err));
        uint32_t at = take(p, size);
        s->scratch = (kn_ref){.base = KN_BASE_WORKSPACE, .offset = (int64_t)at * UNIT};
        give(p, at, size);
    }
    if (row->prepare != NULL)
        ES_RETURN(prepare(s, row->prepare, err));
    for (int k = 0; k < n->n_in; k++)
        if (root[k] != KN_NONE && p->values[root[k]].last == node)
            free_root(p, root[k]);
    for (uint32_t k = 0; k < n->n_out; k++)
        if (p->values[n->out + k].root == n->out + k && p->values[n->out + k].last == 0)
            free_root(p, n->out + k);
    return ES_OK;
}

es_status kn_plan_place(kn_plan *p, es_error *err)
{
    const kn_graph *w = p->w;
    for (kn_val v = 0; v < w->n_values; v++)
        p->values[v].last = 0;
    for (uint32_t i = 0; i < w->n_nodes; i++)
        for (int k = 0; p->dropped[i] == 0 && k < w->nodes[i].n_in; k++)
            p->values[kn_plan_root(p, w->nodes[i].in[k])].last = i;
    for (uint32_t i = 0; i < w->n_nodes; i++)
        if (p->dropped[i] == 0)
            ES_RETURN(place_node(p, i, err));
    p->random = false;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const kn_step *s = &p->steps[i];
        p->random |= w->nodes[s->node].op == KN_OP_DROPOUT;
        for (int k = 0; k < s->call.n_in; k++)
            p->used[s->in[k].base] = 1;
        for (int k = 0; k < s->call.n_out; k++)
            p->used[s->out[k].base] = 1;
    }
    return ES_OK;
}
