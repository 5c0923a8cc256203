/* Running averages (BLEND): a subnet has two per batch norm, each of a few hundred numbers. Alone they cost a launch each; kn_cuda_fuse_blends moves all of a plan to its
 * end and marks them, and the last one launches one kernel for all. Nothing is moved when the plan also reads parameters of that set or blends one
 * parameter twice: there the order matters.
 */
#include <stdlib.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/plan/plan_internal.h"

enum { PER_LAUNCH = 96, BLEND_NOW = 0, BLEND_WAIT = 1, BLEND_LAST = 2 };

struct blend {
    float *to;
    const float *from, *coef;
    int count;
};

struct blends {
    blend b[PER_LAUNCH];
};

struct kn_cuda_blends {
    int n;
    blends list;
};

es_status kn_cuda_blends_open(kn_cuda_device *dev, es_error *err)
{
    dev->blends = (kn_cuda_blends *)calloc(1, sizeof *dev->blends);
    return dev->blends ? ES_OK : es_fail(err, ES_NO_MEMORY, "cuda", "no memory for a list of averages");
}

void kn_cuda_blends_close(kn_cuda_device *dev)
{
    free(dev->blends);
    dev->blends = NULL;
}

void kn_cuda_blends_forget(kn_cuda_device *dev) { dev->blends->n = 0; }

static __global__ void __launch_bounds__(256) blends_kernel(const __grid_constant__ blends l)
{
    const blend b = l.b[blockIdx.x];
    const float coef = *b.coef;
    for (int i = threadIdx.x; i < b.count; i += 256)
        b.to[i] = coef == 1.f ? b.from[i] : fmaf(coef, b.from[i] - b.to[i], b.to[i]); /* 1 assigns, exactly */
}

/* Whether this call can wait: dense vectors of fp32 and one coefficient. */
static bool simple(const kn_call *c)
{
    const kn_tensor *to = &c->out[0];
    return kn_shape_count(&c->in[1].shape) == 1 && c->in[0].dtype == KN_F32 && c->in[1].dtype == KN_F32 &&
           kn_tensor_contiguous(to) && kn_tensor_contiguous(&c->in[0]) && kn_shape_equal(&to->shape, &c->in[0].shape);
}

static es_status flush(kn_cuda_device *dev, es_error *err)
{
    kn_cuda_blends *l = dev->blends;
    if (l->n > 0)
        blends_kernel<<<(unsigned)l->n, 256, 0, dev->stream>>>(l->list);
    l->n = 0;
    KN_LAUNCHED("blend");
    return ES_OK;
}

es_status kn_cuda_blend_now(const kn_call *c, es_error *err); /* elementwise.cu */

extern "C" es_status kn_cuda_blend(const kn_call *c, es_error *err)
{
    kn_cuda_blends *l = kn_cuda(c)->blends;
    if (c->a->order == BLEND_NOW || !simple(c))
        ES_RETURN(kn_cuda_blend_now(c, err));
    else
        l->list.b[l->n++] = blend{(float *)c->out[0].p, (const float *)c->in[0].p, (const float *)c->in[1].p,
                                  (int)kn_shape_count(&c->out[0].shape)};
    return c->a->order == BLEND_LAST || l->n == PER_LAUNCH ? flush(kn_cuda(c), err) : ES_OK;
}

/* Two blends of one parameter, or a slice read of a set that is blended. */
static bool order_matters(const kn_graph *w, const kn_node *blends, uint32_t n)
{
    unsigned sets = 0;
    for (uint32_t i = 0; i < n; i++) {
        sets |= 1u << blends[i].a.set;
        for (uint32_t j = 0; j < i; j++)
            if (blends[i].a.param == blends[j].a.param && blends[i].a.set == blends[j].a.set)
                return true;
    }
    for (uint32_t i = 0; i < w->n_nodes; i++)
        if (w->nodes[i].op == KN_OP_PARAM && (sets >> w->nodes[i].a.set & 1))
            return true;
    return false;
}

void kn_cuda_fuse_blends(kn_plan *p)
{
    kn_graph *w = p->w;
    uint32_t blended = 0, kept = 0;
    for (uint32_t i = 0; i < w->n_nodes; i++)
        blended += w->nodes[i].op == KN_OP_BLEND;
    if (blended < 2)
        return;
    kn_node *moved = (kn_node *)es_xcalloc(blended, sizeof *moved);
    blended = 0;
    for (uint32_t i = 0; i < w->n_nodes; i++)
        if (w->nodes[i].op == KN_OP_BLEND)
            moved[blended++] = w->nodes[i];
    if (!order_matters(w, moved, blended)) {
        for (uint32_t i = 0; i < w->n_nodes; i++) {
            if (w->nodes[i].op == KN_OP_BLEND)
                continue;
            for (uint32_t k = 0; k < w->nodes[i].n_out; k++)
                w->values[w->nodes[i].out + k].node = kept;
            w->nodes[kept++] = w->nodes[i];
        }
        for (uint32_t i = 0; i < blended; i++) {
            moved[i].a.order = i + 1 < blended ? BLEND_WAIT : BLEND_LAST;
            w->nodes[kept + i] = moved[i];
        }
    }
    free(moved);
}
