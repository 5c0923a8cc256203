/* graph.h - a computation as a small graph of op nodes with known shapes.
 *
 *     kn_graph *g = kn_graph_new(params);                       // params[KN_SET_WEIGHTS], params[KN_SET_STATS]; reusable: kn_graph_reset(g)
 *     kn_val x = kn_input(g, IN_IMAGES, KN_SHAPE(n, 28, 28, 1), KN_F32);
 *     kn_val w = kn_param_slice(g, KN_SET_WEIGHTS, stem, &box);  // a view: nothing is copied
 *     kn_val y = kn_conv2d(g, x, w, stride, pad, groups);
 *     ...
 *     kn_val loss = kn_reduce_mean(g, kn_cross_entropy(g, logits, labels, 0.1f), KN_AXES_ALL);
 *     kn_graph_status(g, err)                                   // the first mistake: which op, which shapes
 *     kn_grad_params(g, loss, wanted, ctx, err);                // adds the backward nodes, which add into the gradient slices (autodiff.h)
 *     kn_output(g, OUT_LOSS, loss);
 *
 * Builders never fail on their own: a wrong shape records the first error in the graph, returns KN_NONE, and everything built on KN_NONE is KN_NONE.
 * kn_graph_status reports it. Nodes are in topological order by construction. All memory is the graph's arena; reset keeps it, so building
 * graph after graph allocates nothing.
 *
 * Values are dense unless they are parameter slices. Types are logical: KN_F32 means "real"; a plan may store activations as bf16.
 * Every op, its inputs, outputs, attributes and gradient are described in ops.h, once.
 */
#ifndef KN_GRAPH_H
#define KN_GRAPH_H

#include "kernels/params/params.h"
#include "kernels/tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef uint32_t kn_val; /* a value (one output of one node); 0 is none */
enum { KN_NONE = 0, KN_IN_MAX = 8, KN_OUT_MAX = 4, KN_SLOTS = 32, KN_SCALARS = 16 };
enum { KN_AXES_ALL = 0x1f };

typedef enum kn_act {
    KN_ACT_NONE,
    KN_ACT_RELU,
    KN_ACT_RELU6,
    KN_ACT_HSWISH,
    KN_ACT_HSIGMOID,
    KN_ACT_SILU,
    KN_ACT_GELU,
    KN_ACT_SIGMOID,
    KN_ACT_TANH,
    KN_ACT_EXP,
    KN_ACT_LOG,
    KN_ACT_SQRT,
    KN_ACT_RSQRT,
    KN_ACT_RECIPROCAL,
    KN_ACT_SQUARE,
    KN_ACT_ABS,
    KN_ACT_COUNT
} kn_act;

typedef struct kn_graph kn_graph;

/* Borrows the sets until destroyed; entries may be NULL. */
kn_graph *kn_graph_new(const kn_params *const params[KN_SETS]);
void kn_graph_destroy(kn_graph **g);
void kn_graph_reset(kn_graph *g);
es_status kn_graph_status(const kn_graph *g, es_error *err) ES_MUST_CHECK;
void kn_graph_scope(kn_graph *g, const char *name); /* named in errors and dumps; borrowed until reset */
size_t kn_graph_nodes(const kn_graph *g);
kn_shape kn_shape_of(const kn_graph *g, kn_val v);
char *kn_graph_dot(const kn_graph *g); /* Graphviz text; caller owns */

/* Sources. */
kn_val kn_input(kn_graph *g, int slot, kn_shape shape, kn_dtype dtype);
kn_val kn_param_slice(kn_graph *g, int set, kn_param id, const kn_box *box); /* box NULL: whole */
kn_val kn_constant(kn_graph *g, kn_shape shape, float value);
kn_val kn_scalar(kn_graph *g, int slot); /* rank 0, given at each run: learning-rate-like numbers, 1/n, temperatures */

/* Sinks. */
void kn_output(kn_graph *g, int slot, kn_val v);
/* A value handed from one plan to another: it leaves and enters in the type in which a plan of that precision stores activations (kn_kept_bytes in plan.h), so that a
 * network cut into plans computes what each piece would compute with any other piece before it. */
void kn_output_kept(kn_graph *g, int slot, kn_val v);
kn_val kn_input_kept(kn_graph *g, int slot, kn_shape shape);
void kn_accumulate_grad(kn_graph *g, kn_val param_slice,
                        kn_val d); /* gradient[box] += d; what autodiff emits for a slice */
void kn_blend_param(kn_graph *g, int set, kn_param id, const kn_box *box, kn_val v,
                    kn_val coef); /* p += coef (v - p): moving and cumulative averages, assignment */

/* Elementwise; binary ones broadcast (numpy rules). */
kn_val kn_add(kn_graph *g, kn_val a, kn_val b);
kn_val kn_sub(kn_graph *g, kn_val a, kn_val b);
kn_val kn_mul(kn_graph *g, kn_val a, kn_val b);
kn_val kn_div(kn_graph *g, kn_val a, kn_val b);
kn_val kn_maximum(kn_graph *g, kn_val a, kn_val b); /* gradient to a where equal */
kn_val kn_scale(kn_graph *g, kn_val a, float k);
kn_val kn_shift(kn_graph *g, kn_val a, float k);
kn_val kn_activate(kn_graph *g, kn_val a, kn_act act);
kn_val kn_bias_act(kn_graph *g, kn_val a, kn_val bias /* [last dim] or KN_NONE */, kn_act act);
kn_val kn_detach(kn_graph *g, kn_val a); /* same value, no gradient */
/* mask = Philox(seed, DROPOUT, step, use_index, element); per_channel: spatial dropout. */
kn_val kn_dropout(kn_graph *g, kn_val a, float rate, uint32_t use_index, bool per_channel);
kn_val kn_drop_path(kn_graph *g, kn_val a, float rate, uint32_t use_index); /* per sample */

/* Reductions: axes is a bit mask, reduced dimensions stay as 1. */
kn_val kn_reduce_sum(kn_graph *g, kn_val a, uint32_t axes);
kn_val kn_reduce_mean(kn_graph *g, kn_val a, uint32_t axes);
kn_val kn_reduce_max(kn_graph *g, kn_val a, uint32_t axes); /* gradient to the first maximum */

/* Shape. */
kn_val kn_broadcast(kn_graph *g, kn_val a, kn_shape shape);
kn_val kn_reshape(kn_graph *g, kn_val a, kn_shape shape); /* free: no kernel runs */
kn_val kn_transpose(kn_graph *g, kn_val a, const int *perm);
kn_val kn_slice(kn_graph *g, kn_val a, const kn_box *box);
kn_val kn_pad(kn_graph *g, kn_val a, const int32_t *before, const int32_t *after);
kn_val kn_concat(kn_graph *g, const kn_val *vals, int n, int axis); /* n <= KN_IN_MAX; chain for more */

/* Products. */
kn_val kn_matmul(kn_graph *g, kn_val a, kn_val b, bool ta,
                 bool tb); /* [..., m, k] x [..., k, n]; leading dimensions equal, or b of rank 2 */
kn_val kn_linear(kn_graph *g, kn_val x /* [..., in] */, kn_val w /* [out][in] */); /* matmul(x, w, false, true) */
kn_val kn_conv2d(kn_graph *g, kn_val x, kn_val w /* OHWI */, int stride, int pad, int groups, int dilation);
kn_val kn_depthwise(kn_graph *g, kn_val x, kn_val w /* HWC */, int stride, int pad, int dilation);
kn_val kn_attention(kn_graph *g, kn_val q, kn_val k, kn_val v, float scale, bool causal); /* [n, t, heads, d] */
kn_val kn_self_attention(kn_graph *g, kn_val qkv /* [n, t, heads, 3 d]: a head's query, key, value */, float scale,
                         bool causal);
kn_val kn_embedding(kn_graph *g, kn_val indices /* I32 [...] */, kn_val table /* [symbols][d] */);

/* Normalisation. gamma and beta may be KN_NONE. */
typedef struct kn_bn {
    kn_val y, mean, var;
} kn_bn; /* var is biased */
kn_bn kn_batch_norm(kn_graph *g, kn_val x, kn_val gamma, kn_val beta, float eps,
                    kn_act act); /* batch statistics over all but the last dim */
kn_val kn_batch_norm_infer(kn_graph *g, kn_val x, kn_val gamma, kn_val beta, kn_val mean, kn_val var, float eps,
                           kn_act act);
kn_val kn_layer_norm(kn_graph *g, kn_val x, kn_val gamma, kn_val beta, float eps); /* over the last dim */

/* Pooling and resampling, NHWC. */
kn_val kn_max_pool(kn_graph *g, kn_val x, int kernel, int stride, int pad);
kn_val kn_avg_pool(kn_graph *g, kn_val x, int kernel, int stride, int pad, bool count_pad);
kn_val kn_global_avg_pool(kn_graph *g, kn_val x);      /* [n, 1, 1, c] */
kn_val kn_upsample(kn_graph *g, kn_val x, int factor); /* nearest */

/* Losses: one value per sample ([n] for logits [n, classes]); mean over the batch is kn_reduce_mean, explicit. */
kn_val kn_softmax(kn_graph *g, kn_val x); /* over the last dim */
kn_val kn_log_softmax(kn_graph *g, kn_val x);
kn_val kn_cross_entropy(kn_graph *g, kn_val logits, kn_val labels /* I32 [n] */, float smoothing);
kn_val kn_soft_cross_entropy(kn_graph *g, kn_val logits, kn_val probs /* [n, classes] */);
/* Adaptive alpha-divergence of AlphaNet (arXiv:2102.07954, eq. 5-7): per sample the larger of D(alpha_minus) and D(alpha_plus), r^alpha clipped at `clip`;
 * the gradient is the paper's surrogate. Not twice differentiable (the choice is detached). */
kn_val kn_alpha_divergence(kn_graph *g, kn_val logits, kn_val teacher_logits, float alpha_minus, float alpha_plus,
                           float clip);
kn_val kn_correct(kn_graph *g, kn_val logits,
                  kn_val labels); /* [n]: 1.0 where the arg-max is the label (first maximum wins) */

#ifdef __cplusplus
}
#endif
#endif
