/* Lowering: the visitor of the walk that adds graph nodes. It formats no text and looks nothing up by name. Values after global pooling or flatten have rank 2, and so has everything
 * made of tokens: a row for each position of each sample. */
#include <math.h>

#include "supernet/net/internal.h"

typedef struct lowering {
    const sn_net *net;
    const sn_lower_options *o;
    kn_graph *g;
    kn_val images, logits, blend;
    bool away; /* outside the links asked for: references are those of sn_op_flat */
} lowering;

static kn_val param(const lowering *l, const sn_slice *s) { return kn_param_slice(l->g, s->set, s->id, &s->box); }

/* Area interpolation from size to size: each axis is repeated p times and averaged q by q, with p/q the ratio in lowest terms. One axis at a time, so that the
 * largest value in between is p, not p * p, times the input. */
static kn_val resize(kn_graph *g, kn_val x, int n, int from, int to, int c)
{
    int a = from, b = to;
    while (b) {
        int t = a % b;
        a = b;
        b = t;
    }
    int p = to / a, q = from / a;
    x = kn_reshape(g, x, KN_SHAPE(n, from, 1, from * c)); /* rows */
    x = kn_broadcast(g, x, KN_SHAPE(n, from, p, from * c));
    x = kn_reshape(g, x, KN_SHAPE(n, to, q, from * c));
    x = kn_reduce_mean(g, x, 1u << 2);
    x = kn_reshape(g, x, KN_SHAPE(n * to, from, 1, c)); /* columns */
    x = kn_broadcast(g, x, KN_SHAPE(n * to, from, p, c));
    x = kn_reshape(g, x, KN_SHAPE(n * to, to, q, c));
    x = kn_reduce_mean(g, x, 1u << 2);
    return kn_reshape(g, x, KN_SHAPE(n, to, to, c));
}

static kn_val norm(lowering *l, const sn_walk *w, const sn_op *op)
{
    sn_slice s[SN_OP_SLICES_MAX];
    int n = sn_net_op_slices(l->net, op, s), stats = op->affine ? 2 : 0;
    float eps = w->space->spec->eps;
    kn_val x = op->x[0].ref, gamma = op->affine ? param(l, &s[0]) : KN_NONE,
           beta = op->affine ? param(l, &s[1]) : KN_NONE;
    ES_ASSERT(n == stats + 2);
    if (w->frozen || l->o->mode == SN_INFER)
        return kn_batch_norm_infer(l->g, x, gamma, beta, param(l, &s[stats]), param(l, &s[stats + 1]), eps, op->act);
    kn_bn bn = kn_batch_norm(l->g, x, gamma, beta, eps, op->act);
    if (l->o->mode == SN_CALIBRATE) {
        if (l->blend == KN_NONE)
            l->blend = kn_scalar(l->g, SN_SCALAR_BLEND);
        kn_blend_param(l->g, KN_SET_STATS, s[stats].id, &s[stats].box, bn.mean, l->blend);
        kn_blend_param(l->g, KN_SET_STATS, s[stats + 1].id, &s[stats + 1].box, bn.var, l->blend);
    }
    return bn.y;
}

static kn_val embed(lowering *l, const sn_op *op)
{
    kn_graph *g = l->g;
    sn_slice s[SN_OP_SLICES_MAX];
    int n = l->o->batch, t = op->out.w, c = op->out.c;
    sn_net_op_slices(l->net, op, s);
    kn_val x = kn_reshape(g, kn_embedding(g, op->x[0].ref, param(l, &s[0])), KN_SHAPE(n, t, c));
    return kn_reshape(g, kn_add(g, x, param(l, &s[1])), KN_SHAPE(n * t, c));
}

static kn_val attention(lowering *l, const sn_op *op)
{
    int n = l->o->batch, t = op->out.w, c = op->out.c, dim = c / op->heads;
    kn_val qkv = kn_reshape(l->g, op->x[0].ref, KN_SHAPE(n, t, op->heads, 3 * dim));
    kn_val y = kn_self_attention(l->g, qkv, 1.0f / sqrtf((float)dim), true);
    return kn_reshape(l->g, y, KN_SHAPE(n * t, c));
}

static kn_val concat(lowering *l, const sn_op *op)
{
    kn_val v[KN_IN_MAX];
    for (int i = 0; i < op->n; i++)
        v[i] = op->x[i].ref;
    return kn_concat(l->g, v, op->n, 3);
}

static uint32_t lower(sn_walk *w, const sn_op *op)
{
    lowering *l = w->ctx;
    kn_graph *g = l->g;
    kn_val x = op->n > 0 ? op->x[0].ref : KN_NONE, y = op->n > 1 ? op->x[1].ref : KN_NONE;
    int n = l->o->batch, c = op->out.c;
    if (l->away)
        return sn_op_flat(op);
    bool random = l->o->regularise && l->o->mode == SN_TRAIN && !w->frozen;
    sn_slice s[SN_OP_SLICES_MAX];
    switch (op->kind) {
    case SN_OP_INPUT:
        if (w->space->spec->vocabulary)
            return l->images = kn_input(g, SN_IN_IMAGES, KN_SHAPE(n * op->out.w), KN_I32);
        return l->images = kn_input(g, SN_IN_IMAGES, KN_SHAPE(n, op->out.h, op->out.w, c), KN_F32);
    case SN_OP_RESIZE: return resize(g, x, n, op->x[0].h, op->out.h, c);
    case SN_OP_CONV:
        sn_net_op_slices(l->net, op, s);
        kn_graph_scope(g, w->unit->name);
        return kn_conv2d(g, x, param(l, s), op->stride, op->pad, op->groups, op->dilation);
    case SN_OP_DEPTHWISE:
        sn_net_op_slices(l->net, op, s);
        kn_graph_scope(g, w->unit->name);
        return kn_depthwise(g, x, param(l, s), op->stride, op->pad, op->dilation);
    case SN_OP_LINEAR: sn_net_op_slices(l->net, op, s); return kn_linear(g, x, param(l, s));
    case SN_OP_BIAS: sn_net_op_slices(l->net, op, s); return kn_bias_act(g, x, param(l, s), op->act);
    case SN_OP_NORM: return norm(l, w, op);
    case SN_OP_ACT: return kn_activate(g, x, op->act);
    case SN_OP_MAX_POOL: return kn_max_pool(g, x, op->k, op->stride, op->pad);
    case SN_OP_AVG_POOL: return kn_avg_pool(g, x, op->k, op->stride, op->pad, false);
    case SN_OP_GLOBAL_POOL: return kn_reshape(g, kn_global_avg_pool(g, x), KN_SHAPE(n, c));
    case SN_OP_FLATTEN: return kn_reshape(g, x, KN_SHAPE(n, c));
    case SN_OP_ADD: return kn_add(g, x, y);
    case SN_OP_SCALE: return kn_mul(g, x, kn_reshape(g, y, KN_SHAPE(n, 1, 1, c)));
    case SN_OP_CONCAT: return concat(l, op);
    case SN_OP_ZERO: return kn_constant(g, KN_SHAPE(n, op->out.h, op->out.w, c), 0);
    case SN_OP_DROPOUT: return random ? kn_dropout(g, x, op->rate, (uint32_t)op->slot, op->per_channel) : x;
    case SN_OP_DROP_PATH: return random ? kn_drop_path(g, x, op->rate, (uint32_t)op->slot) : x;
    case SN_OP_EMBED: return embed(l, op);
    case SN_OP_LAYER_NORM:
        sn_net_op_slices(l->net, op, s);
        return kn_layer_norm(g, x, param(l, s), KN_NONE, w->space->spec->eps);
    case SN_OP_ATTENTION: return attention(l, op);
    case SN_OP_TIED: sn_net_op_slices(l->net, op, s); return kn_linear(g, x, param(l, s));
    case SN_OP_OUTPUT: return l->logits = x;
    }
    return KN_NONE;
}

/* Where the piece asked for begins and ends. */
static uint32_t boundary(sn_walk *w, int k, sn_val x)
{
    lowering *l = w->ctx;
    if (k > 0 && k == l->o->first) {
        l->away = false;
        return kn_input_kept(l->g, SN_IN_LINK, sn_val_shape(&x, l->o->batch, x.ref & 1));
    }
    if (l->o->end > 0 && k == l->o->end) {
        kn_output_kept(l->g, SN_OUT_LINK, x.ref);
        l->away = true;
        return 0;
    }
    return x.ref;
}

es_status sn_net_lower(const sn_net *n, const sr_arch *a, const sn_lower_options *o, kn_graph *g, sn_lowered *out,
                       es_error *err)
{
    lowering l = {.net = n, .o = o, .g = g, .away = o->first > 0};
    sn_walk w = {.space = n->space, .arch = a, .emit = lower, .ctx = &l, .unit_flags = o->unit_flags};
    w.boundary = boundary;
    if (o->batch < 1)
        return es_fail(err, ES_INVALID, "lowering", "batch %d; allowed: at least 1", o->batch);
    ES_RETURN(sn_walk_run(&w, err));
    *out = (sn_lowered){.images = l.images, .logits = l.logits};
    return kn_graph_status(g, err);
}
