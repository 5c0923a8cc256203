#include "kernels/cpu/fuse.h"

#include <stdlib.h>

#include "base/arena.h"

enum { READERS_MAX = 4, NO_NODE = UINT32_MAX };

/* Who reads a value; more than READERS_MAX readers are only counted. */
typedef struct readers {
    uint32_t n, node[READERS_MAX];
} readers;

typedef struct pass {
    kn_graph *w;
    readers *of; /* by value */
    uint32_t cap;
} pass;

static void find_readers(pass *s)
{
    const uint32_t values = s->w->n_values + KN_BACK_OUTPUTS * s->w->n_nodes; /* joint ops bring new ones */
    kn_plan_room(&s->of, &s->cap, values, sizeof *s->of);
    memset(s->of, 0, values * sizeof *s->of);
    for (uint32_t i = 0; i < s->w->n_nodes; i++)
        for (int k = 0; k < s->w->nodes[i].n_in; k++) {
            readers *r = &s->of[s->w->nodes[i].in[k]];
            if (r->n < READERS_MAX)
                r->node[r->n] = i;
            r->n++;
        }
}

static kn_node *producer(const pass *s, kn_val v) { return &s->w->nodes[s->w->values[v].node]; }
static const kn_shape *shape(const pass *s, kn_val v) { return &s->w->values[v].shape; }

static int64_t rows_of(const kn_shape *x) { return (int64_t)x->d[0] * x->d[1] * x->d[2]; }

/* 1x1, stride 1, no padding, one group; w is [co][1][1][ci] and y as large as x. */
static bool is_point(const kn_node *n, int kh, int kw)
{
    return kh == 1 && kw == 1 && n->a.stride <= 1 && n->a.pad == 0 && n->a.groups <= 1;
}

/* --- norms that only convolutions read --- */

/* Can this reader of y normalise x itself? */
static bool reads_lazily(const pass *s, const kn_node *n, kn_val y)
{
    const kn_shape *other = shape(s, n->in[1]);
    if (n->n_in != 2 || n->in[0] != y || n->in[1] == y)
        return false;
    switch (n->op) {
    case KN_OP_DEPTHWISE:
    case KN_OP_DEPTHWISE_DW: return true;
    case KN_OP_CONV2D: return is_point(n, other->d[1], other->d[2]);
    case KN_OP_CONV2D_DW: {
        const kn_shape *x = shape(s, y);
        return is_point(n, n->a.kh, n->a.kw) && kn_cpu_point_joins(rows_of(x), other->d[3], x->d[3]);
    }
    default: return false;
    }
}

static void make_lazy(pass *s, kn_node *norm)
{
    kn_val y = norm->out;
    const readers *r = &s->of[y];
    const kn_shape *x = shape(s, norm->in[0]);
    bool all = x->rank == 4 && r->n > 0 && r->n <= READERS_MAX;
    for (uint32_t i = 0; all && i < r->n; i++)
        all = reads_lazily(s, &s->w->nodes[r->node[i]], y);
    if (!all)
        return;
    for (uint32_t i = 0; i < r->n; i++) {
        kn_node *n = &s->w->nodes[r->node[i]];
        n->in[0] = norm->in[0];
        n->in[n->n_in++] = y;
        n->a.act = norm->a.act;
    }
    s->w->values[y].shape = KN_SHAPE(3, x->d[3]);
}

/* --- the two gradients of one convolution in one op --- */

static bool joins(const pass *s, const kn_node *dx, const kn_node *dw)
{
    const kn_shape *x = shape(s, dw->in[0]), *out = shape(s, dx->out), *w = shape(s, dx->in[1]),
                   *dy = shape(s, dx->in[0]);
    if (!kn_shape_equal(x, out) || !kn_shape_equal(w, shape(s, dw->out)) || dx->a.stride != dw->a.stride ||
        dx->a.pad != dw->a.pad || dx->a.dilation != dw->a.dilation || dx->a.groups != dw->a.groups)
        return false;
    if (dx->op == KN_OP_DEPTHWISE_DX)
        return kn_cpu_depthwise_joins(&dx->a, x, dy, w->d[0], w->d[1]);
    return is_point(dx, w->d[1], w->d[2]) && kn_cpu_point_joins(rows_of(x), dy->d[3], x->d[3]);
}

static kn_val add_value(kn_graph *w, kn_shape shape, uint32_t node, int index)
{
    kn_plan_room(&w->values, &w->cap_values, w->n_values + 1, sizeof *w->values);
    w->values[w->n_values] = (kn_value){.shape = shape, .node = node, .dtype = KN_F32, .index = (uint8_t)index};
    return w->n_values++;
}

static void replace_reads(pass *s, kn_val from, kn_val to)
{
    const readers *r = &s->of[from];
    const bool listed = r->n <= READERS_MAX;
    for (uint32_t i = 0; i < (listed ? r->n : s->w->n_nodes); i++) {
        kn_node *n = &s->w->nodes[listed ? r->node[i] : i];
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] == from)
                n->in[k] = to;
    }
    s->of[to] = *r;
}

/* The joint op stands where the first of the two stood: everything it reads must be made before. */
static void join(pass *s, uint32_t dx_node, uint32_t dw_node)
{
    const uint32_t at = KN_MIN(dx_node, dw_node), other = KN_MAX(dx_node, dw_node);
    kn_node dx = s->w->nodes[dx_node], dw = s->w->nodes[dw_node];
    for (int k = 0; k < dx.n_in; k++)
        if (producer(s, dx.in[k]) >= &s->w->nodes[at])
            return;
    for (int k = 0; k < dw.n_in; k++)
        if (producer(s, dw.in[k]) >= &s->w->nodes[at])
            return;
    kn_node n = {.op = dx.op, .n_in = KN_BACK_INPUTS, .n_out = KN_BACK_OUTPUTS, .scope = dx.scope, .a = dx.a};
    n.in[KN_BACK_DY] = dx.in[0];
    n.in[KN_BACK_W] = dx.in[1];
    n.in[KN_BACK_X] = dw.in[0];
    n.in[KN_BACK_COEF] = dw.n_in > 2 ? dw.in[2] : KN_NONE;
    n.a.act = dw.a.act;
    n.a.axis = KN_ACT_NONE;
    kn_shape x = *shape(s, dx.out), w = *shape(s, dw.out);
    n.out = add_value(s->w, x, at, KN_BACK_DX);
    add_value(s->w, w, at, KN_BACK_DW);
    add_value(s->w, KN_SHAPE(2, x.d[3]), at, KN_BACK_SUMS);
    s->w->nodes[at] = n;
    s->w->nodes[other] =
        (kn_node){.op = KN_OP_RESHAPE, .scope = dx.scope}; /* reads and makes nothing: no kernel runs */
    replace_reads(s, dx.out, n.out + KN_BACK_DX);
    replace_reads(s, dw.out, n.out + KN_BACK_DW);
}

static void join_pairs(pass *s)
{
    for (uint32_t i = 0; i < s->w->n_nodes; i++) {
        const kn_node *n = &s->w->nodes[i];
        if ((n->op != KN_OP_CONV2D_DX && n->op != KN_OP_DEPTHWISE_DX) || n->n_out != 1)
            continue;
        const kn_op partner = n->op == KN_OP_CONV2D_DX ? KN_OP_CONV2D_DW : KN_OP_DEPTHWISE_DW;
        const readers *r = &s->of[n->in[0]];
        for (uint32_t k = 0; k < KN_MIN(r->n, READERS_MAX); k++) {
            const kn_node *dw = &s->w->nodes[r->node[k]];
            if (dw->op == partner && dw->in[1] == n->in[0] && joins(s, n, dw)) {
                join(s, i, r->node[k]);
                break;
            }
        }
    }
}

/* --- gradients of norms inside joint ops --- */

static kn_node *joint_reader(const pass *s, kn_val v)
{
    if (s->of[v].n != 1)
        return NULL;
    kn_node *n = &s->w->nodes[s->of[v].node[0]];
    bool joint = (n->op == KN_OP_CONV2D_DX || n->op == KN_OP_DEPTHWISE_DX) && n->n_out == KN_BACK_OUTPUTS;
    return joint && n->in[KN_BACK_DY] == v && n->in[KN_BACK_E] == KN_NONE ? n : NULL;
}

/* The only reader of dx is a joint op: it evaluates dx itself. */
static void grad_inside_reader(pass *s, kn_node *grad)
{
    kn_node *n = joint_reader(s, grad->out);
    if (n == NULL || shape(s, grad->in[1])->rank != 4)
        return;
    n->in[KN_BACK_DY] = grad->in[0];
    n->in[KN_BACK_E] = grad->in[1];
    n->in[KN_BACK_COEF_E] = grad->out;
    n->a.axis = (int32_t)grad->a.act;
    s->w->values[grad->out].shape = KN_SHAPE(4, shape(s, grad->in[1])->d[3]);
}

/* dy comes from a joint op that has x at hand and nobody else reads it: that op takes the sums, and its dx is dz. `reader` evaluates the gradient. */
static void sums_inside_producer(pass *s, kn_node *grad)
{
    kn_val dy = grad->in[0], coef = grad->out;
    kn_node *n = producer(s, dy);
    bool joint = (n->op == KN_OP_CONV2D_DX || n->op == KN_OP_DEPTHWISE_DX) && n->n_out == KN_BACK_OUTPUTS &&
                 dy == n->out + KN_BACK_DX;
    if (!joint || n->in[KN_BACK_COEF] == KN_NONE || n->in[KN_BACK_X] != grad->in[1] || s->of[dy].n != 2 ||
        s->of[coef].n != 1)
        return;
    kn_node *reader = &s->w->nodes[s->of[coef].node[0]];
    const kn_node *norm = producer(s, n->in[KN_BACK_COEF]);
    if (reader->in[KN_BACK_DY] != dy || norm->op != KN_OP_BATCH_NORM || norm->in[1] != grad->in[2] ||
        norm->in[2] != grad->in[3] || norm->a.act != grad->a.act || norm->a.eps != grad->a.eps)
        return;
    grad->in[0] = n->out + KN_BACK_SUMS;
    reader->a.axis = KN_ACT_NONE;
}

es_status kn_cpu_fuse(kn_device *d, kn_plan *p, es_error *err)
{
    (void)d, (void)err;
    pass s = {.w = p->w};
    find_readers(&s);
    for (uint32_t i = 0; i < s.w->n_nodes; i++)
        if (s.w->nodes[i].op == KN_OP_BATCH_NORM)
            make_lazy(&s, &s.w->nodes[i]);
    find_readers(&s);
    join_pairs(&s);
    find_readers(&s);
    for (uint32_t i = 0; i < s.w->n_nodes; i++)
        if (s.w->nodes[i].op == KN_OP_BATCH_NORM_GRAD)
            grad_inside_reader(&s, &s.w->nodes[i]);
    find_readers(&s);
    for (uint32_t i = 0; i < s.w->n_nodes; i++)
        if (s.w->nodes[i].op == KN_OP_BATCH_NORM_GRAD && shape(&s, s.w->nodes[i].out)->rank == 2 &&
            shape(&s, s.w->nodes[i].in[1])->rank == 4)
            sums_inside_producer(&s, &s.w->nodes[i]);
    free(s.of);
    return ES_OK;
}
