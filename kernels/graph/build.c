/* The builders of graph.h: they fill attributes; inference (kernels/ops/) checks. Composite builders are made of the others. */
#include <string.h>

#include "kernels/graph/graph_internal.h"

kn_val kn_input(kn_graph *g, int slot, kn_shape shape, kn_dtype dtype)
{
    return kn_emit(g, KN_OP_INPUT, &(kn_attr){.slot = slot, .shape = shape, .order = (int32_t)dtype}, NULL, 0);
}

kn_val kn_param_slice(kn_graph *g, int set, kn_param id, const kn_box *box)
{
    kn_attr a = {.set = set, .param = id};
    if (g->status != ES_OK)
        return KN_NONE;
    if (set < 0 || set >= KN_SETS || g->params[set] == NULL)
        return kn_graph_fail(g, ES_INVALID, "param", "the graph has no parameter set %d", set);
    if (id < 0 || id >= kn_params_count(g->params[set]))
        return kn_graph_fail(g, ES_INVALID, "param", "set %d has %d parameters, there is no number %d", set,
                             kn_params_count(g->params[set]), id);
    a.box = box != NULL ? *box : kn_box_full(&kn_params_def(g->params[set], id)->shape);
    return kn_emit(g, KN_OP_PARAM, &a, NULL, 0);
}

kn_val kn_constant(kn_graph *g, kn_shape shape, float value)
{
    return kn_emit(g, KN_OP_CONSTANT, &(kn_attr){.shape = shape, .alpha = value}, NULL, 0);
}

kn_val kn_scalar(kn_graph *g, int slot) { return kn_emit(g, KN_OP_SCALAR, &(kn_attr){.slot = slot}, NULL, 0); }

void kn_output(kn_graph *g, int slot, kn_val v) { KN_EMIT(g, OUTPUT, &(kn_attr){.slot = slot}, v); }

void kn_output_kept(kn_graph *g, int slot, kn_val v)
{
    KN_EMIT(g, OUTPUT, (&(kn_attr){.slot = slot, .kept = true}), v);
}

kn_val kn_input_kept(kn_graph *g, int slot, kn_shape shape)
{
    return kn_emit(g, KN_OP_INPUT, &(kn_attr){.slot = slot, .shape = shape, .order = KN_F32, .kept = true}, NULL, 0);
}

void kn_accumulate_grad(kn_graph *g, kn_val param_slice, kn_val d)
{
    kn_attr a = {0};
    if (g->status == ES_OK && param_slice != KN_NONE && param_slice < g->n_values)
        a = kn_node_of(g, param_slice)->a; /* set, param and box of the slice */
    KN_EMIT(g, ACCUMULATE, &a, param_slice, d);
}

void kn_blend_param(kn_graph *g, int set, kn_param id, const kn_box *box, kn_val v, kn_val coef)
{
    kn_val slice = kn_param_slice(g, set, id, box); /* checks; unused otherwise */
    if (slice == KN_NONE)
        return;
    kn_attr a = kn_node_of(g, slice)->a;
    KN_EMIT(g, BLEND, &a, v, coef);
}

kn_val kn_add(kn_graph *g, kn_val a, kn_val b) { return KN_EMIT(g, ADD, &(kn_attr){0}, a, b); }
kn_val kn_sub(kn_graph *g, kn_val a, kn_val b) { return KN_EMIT(g, SUB, &(kn_attr){0}, a, b); }
kn_val kn_mul(kn_graph *g, kn_val a, kn_val b) { return KN_EMIT(g, MUL, &(kn_attr){0}, a, b); }
kn_val kn_div(kn_graph *g, kn_val a, kn_val b) { return KN_EMIT(g, DIV, &(kn_attr){0}, a, b); }
kn_val kn_maximum(kn_graph *g, kn_val a, kn_val b) { return KN_EMIT(g, MAXIMUM, &(kn_attr){0}, a, b); }
kn_val kn_scale(kn_graph *g, kn_val a, float k) { return KN_EMIT(g, AFFINE, &(kn_attr){.alpha = k}, a); }
kn_val kn_shift(kn_graph *g, kn_val a, float k)
{
    return KN_EMIT(g, AFFINE, (&(kn_attr){.alpha = 1.0f, .beta = k}), a);
}

kn_val kn_activate(kn_graph *g, kn_val a, kn_act act)
{
    return act == KN_ACT_NONE ? a : KN_EMIT(g, ACTIVATE, &(kn_attr){.act = act}, a);
}

kn_val kn_bias_act(kn_graph *g, kn_val a, kn_val bias, kn_act act)
{
    return bias == KN_NONE ? kn_activate(g, a, act) : KN_EMIT(g, BIAS_ACT, &(kn_attr){.act = act}, a, bias);
}

kn_val kn_detach(kn_graph *g, kn_val a) { return KN_EMIT(g, DETACH, &(kn_attr){0}, a); }

/* The mask is shared along `axes`. */
static kn_val drop(kn_graph *g, kn_val a, float rate, uint32_t use_index, uint32_t axes)
{
    kn_attr at = {.rate = rate, .use_index = use_index, .axes = axes};
    return rate == 0.0f ? a : KN_EMIT(g, DROPOUT, &at, a);
}

kn_val kn_dropout(kn_graph *g, kn_val a, float rate, uint32_t use_index, bool per_channel)
{
    uint32_t axes = 0; /* per channel: everything between the first and the last dimension */
    int rank = kn_shape_of(g, a).rank;
    for (int i = 1; per_channel && i < rank - 1; i++)
        axes |= 1u << i;
    return drop(g, a, rate, use_index, axes);
}

kn_val kn_drop_path(kn_graph *g, kn_val a, float rate, uint32_t use_index)
{
    return drop(g, a, rate, use_index, ((1u << kn_shape_of(g, a).rank) - 1) & ~1u);
}

kn_val kn_reduce_sum(kn_graph *g, kn_val a, uint32_t axes)
{
    return KN_EMIT(g, REDUCE_SUM, &(kn_attr){.axes = axes}, a);
}

kn_val kn_reduce_mean(kn_graph *g, kn_val a, uint32_t axes)
{
    kn_val sum = kn_reduce_sum(g, a, axes);
    if (sum == KN_NONE)
        return KN_NONE;
    kn_shape from = kn_shape_of(g, a), to = kn_shape_of(g, sum);
    return kn_scale(g, sum, (float)((double)kn_shape_count(&to) / (double)kn_shape_count(&from)));
}

kn_val kn_reduce_max(kn_graph *g, kn_val a, uint32_t axes)
{
    return KN_EMIT(g, REDUCE_MAX, &(kn_attr){.axes = axes}, a);
}

kn_val kn_broadcast(kn_graph *g, kn_val a, kn_shape shape)
{
    kn_shape from = kn_shape_of(g, a);
    if (a != KN_NONE && kn_shape_equal(&from, &shape))
        return a;
    return KN_EMIT(g, BROADCAST, &(kn_attr){.shape = shape}, a);
}

kn_val kn_reshape(kn_graph *g, kn_val a, kn_shape shape)
{
    kn_shape from = kn_shape_of(g, a);
    if (a != KN_NONE && kn_shape_equal(&from, &shape))
        return a;
    return KN_EMIT(g, RESHAPE, &(kn_attr){.shape = shape}, a);
}

kn_val kn_transpose(kn_graph *g, kn_val a, const int *perm)
{
    kn_attr at = {0};
    for (int i = 0; i < kn_shape_of(g, a).rank; i++)
        at.perm[i] = perm[i];
    return KN_EMIT(g, TRANSPOSE, &at, a);
}

kn_val kn_slice(kn_graph *g, kn_val a, const kn_box *box) { return KN_EMIT(g, SLICE, &(kn_attr){.box = *box}, a); }

kn_val kn_pad(kn_graph *g, kn_val a, const int32_t *before, const int32_t *after)
{
    kn_attr at = {0}; /* box.start: zeros before, box.extent: zeros after */
    for (int i = 0; i < kn_shape_of(g, a).rank; i++) {
        at.box.start[i] = before[i];
        at.box.extent[i] = after[i];
    }
    return KN_EMIT(g, PAD, &at, a);
}

kn_val kn_concat(kn_graph *g, const kn_val *vals, int n, int axis)
{
    if (n < 1 || n > KN_IN_MAX)
        return kn_graph_fail(g, ES_INVALID, "concat", "takes 1 to %d values, not %d", KN_IN_MAX, n);
    return n == 1 ? vals[0] : kn_emit(g, KN_OP_CONCAT, &(kn_attr){.axis = axis}, vals, n);
}

kn_val kn_matmul(kn_graph *g, kn_val a, kn_val b, bool ta, bool tb)
{
    kn_attr at = {.ta = ta, .tb = tb};
    kn_shape as = kn_shape_of(g, a), bs = kn_shape_of(g, b);
    if (a == KN_NONE || b == KN_NONE || as.rank <= 2 || bs.rank != 2)
        return KN_EMIT(g, MATMUL, &at, a, b);
    if (ta) { /* one b for a batch of transposed a: the batch is made explicit */
        kn_shape full = as;
        memcpy(full.d + as.rank - 2, bs.d, 2 * sizeof bs.d[0]);
        return KN_EMIT(g, MATMUL, &at, a, kn_broadcast(g, b, full));
    }
    /* One b for all: the leading dimensions of a become rows. */
    int32_t k = as.d[as.rank - 1];
    kn_shape rows = KN_SHAPE((int32_t)(kn_shape_count(&as) / (k > 0 ? k : 1)), k), full = as;
    kn_val y = KN_EMIT(g, MATMUL, &at, kn_reshape(g, a, rows), b);
    full.d[as.rank - 1] = kn_shape_of(g, y).d[1];
    return y == KN_NONE ? KN_NONE : kn_reshape(g, y, full);
}

kn_val kn_linear(kn_graph *g, kn_val x, kn_val w) { return kn_matmul(g, x, w, false, true); }

kn_val kn_conv2d(kn_graph *g, kn_val x, kn_val w, int stride, int pad, int groups, int dilation)
{
    kn_attr at = {.stride = stride, .pad = pad, .groups = groups, .dilation = dilation};
    return KN_EMIT(g, CONV2D, &at, x, w);
}

kn_val kn_depthwise(kn_graph *g, kn_val x, kn_val w, int stride, int pad, int dilation)
{
    kn_attr at = {.stride = stride, .pad = pad, .groups = 1, .dilation = dilation};
    return KN_EMIT(g, DEPTHWISE, &at, x, w);
}

kn_val kn_attention(kn_graph *g, kn_val q, kn_val k, kn_val v, float scale, bool causal)
{
    kn_attr at = {.alpha = scale, .causal = causal};
    return KN_EMIT(g, ATTENTION, &at, q, k, v);
}

kn_val kn_self_attention(kn_graph *g, kn_val qkv, float scale, bool causal)
{
    kn_attr at = {.alpha = scale, .causal = causal};
    return KN_EMIT(g, SELF_ATTENTION, &at, qkv);
}

kn_val kn_embedding(kn_graph *g, kn_val indices, kn_val table)
{
    return KN_EMIT(g, EMBEDDING, &(kn_attr){0}, indices, table);
}

kn_bn kn_batch_norm(kn_graph *g, kn_val x, kn_val gamma, kn_val beta, float eps, kn_act act)
{
    kn_attr at = {.eps = eps, .act = act};
    kn_val y = KN_EMIT(g, BATCH_NORM, &at, x, gamma, beta);
    return y == KN_NONE ? (kn_bn){KN_NONE, KN_NONE, KN_NONE} : (kn_bn){y, y + 1, y + 2};
}

kn_val kn_batch_norm_infer(kn_graph *g, kn_val x, kn_val gamma, kn_val beta, kn_val mean, kn_val var, float eps,
                           kn_act act)
{
    kn_attr at = {.eps = eps, .act = act};
    return KN_EMIT(g, BATCH_NORM_INFER, &at, x, gamma, beta, mean, var);
}

kn_val kn_layer_norm(kn_graph *g, kn_val x, kn_val gamma, kn_val beta, float eps)
{
    return KN_EMIT(g, LAYER_NORM, &(kn_attr){.eps = eps}, x, gamma, beta);
}

kn_val kn_max_pool(kn_graph *g, kn_val x, int kernel, int stride, int pad)
{
    kn_attr at = {.kernel = kernel, .stride = stride, .pad = pad};
    return KN_EMIT(g, MAX_POOL, &at, x);
}

kn_val kn_avg_pool(kn_graph *g, kn_val x, int kernel, int stride, int pad, bool count_pad)
{
    kn_attr at = {.kernel = kernel, .stride = stride, .pad = pad, .count_pad = count_pad};
    return KN_EMIT(g, AVG_POOL, &at, x);
}

kn_val kn_global_avg_pool(kn_graph *g, kn_val x)
{
    if (x != KN_NONE && kn_shape_of(g, x).rank != 4)
        return kn_graph_fail(g, ES_INVALID, "global_avg_pool", "needs [n, h, w, c], not %d dimensions",
                             kn_shape_of(g, x).rank);
    return kn_reduce_mean(g, x, 1u << 1 | 1u << 2);
}

kn_val kn_upsample(kn_graph *g, kn_val x, int factor) { return KN_EMIT(g, UPSAMPLE, &(kn_attr){.kernel = factor}, x); }

kn_val kn_softmax(kn_graph *g, kn_val x) { return KN_EMIT(g, SOFTMAX, &(kn_attr){0}, x); }
kn_val kn_log_softmax(kn_graph *g, kn_val x) { return KN_EMIT(g, LOG_SOFTMAX, &(kn_attr){0}, x); }

kn_val kn_cross_entropy(kn_graph *g, kn_val logits, kn_val labels, float smoothing)
{
    return KN_EMIT(g, CROSS_ENTROPY, &(kn_attr){.alpha = smoothing}, logits, labels);
}

kn_val kn_soft_cross_entropy(kn_graph *g, kn_val logits, kn_val probs)
{
    return KN_EMIT(g, SOFT_CROSS_ENTROPY, &(kn_attr){0}, logits, probs);
}

kn_val kn_alpha_divergence(kn_graph *g, kn_val logits, kn_val teacher_logits, float alpha_minus, float alpha_plus,
                           float clip)
{
    kn_attr at = {.alpha = alpha_minus, .beta = alpha_plus, .clip = clip};
    return KN_EMIT(g, ALPHA_DIVERGENCE, &at, logits, teacher_logits);
}

kn_val kn_correct(kn_graph *g, kn_val logits, kn_val labels)
{
    return KN_EMIT(g, CORRECT, &(kn_attr){0}, logits, labels);
}
