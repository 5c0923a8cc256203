/* Dropout (Srivastava et al. 2014), spatial dropout (Tompson et al. 2015) and drop-path (Huang et al. 2016): one op, whose mask is shared along
 * `axes`. The mask is a function of (seed, step, use_index, element), so the gradient, which is the op itself applied to d, sees the same one. */
#include "base/rng.h"
#include "kernels/ops/ref.h"

es_status kn_infer_dropout(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    if (!(n->a.rate >= 0 && n->a.rate < 1) || n->a.use_index >= 1u << 24)
        return es_fail(err, ES_INVALID, NULL,
                       "rate %g, use %u: allowed is a rate from 0 to below 1 and a use below 2^24", (double)n->a.rate,
                       n->a.use_index);
    out[0] = *kn_in_shape(g, n, 0);
    return ES_OK;
}

void kn_grad_dropout(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = KN_EMIT(g, DROPOUT, &n->a, d[0]);
}

es_status kn_ref_dropout(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0];
    uint32_t threshold = (uint32_t)((double)c->a->rate * 4294967296.0);
    (void)err;
    for (kn_iter it = kn_iter_start(&x->shape); it.more; kn_iter_next(&it)) {
        uint64_t element = 0;
        uint32_t lanes[4];
        for (int d = 0; d < x->shape.rank; d++)
            if (!(c->a->axes >> d & 1))
                element = element * (uint64_t)x->shape.d[d] + (uint64_t)it.i[d];
        es_philox(c->seed, ES_USE_DROPOUT, c->step, (uint64_t)c->a->use_index << 32 | element / 4, lanes);
        double v = kn_get(x, kn_offset(x, it.i, x->shape.rank)) / (1.0 - (double)c->a->rate);
        kn_put(c, 0, kn_offset(&c->out[0], it.i, x->shape.rank), lanes[element % 4] >= threshold ? v : 0);
    }
    return ES_OK;
}
