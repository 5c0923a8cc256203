#include "kernels/ops/window.h"

es_status kn_window_check(const kn_node *n, es_error *err)
{
    if (n->a.stride < 1 || n->a.dilation < 1 || n->a.pad < 0)
        return es_fail(err, ES_INVALID, NULL,
                       "stride %d, dilation %d, pad %d: stride and dilation are at least 1, pad at least 0",
                       n->a.stride, n->a.dilation, n->a.pad);
    return ES_OK;
}

es_status kn_window_size(const kn_node *n, int32_t in, int32_t kernel, int32_t *out, es_error *err)
{
    int64_t dilation = n->a.dilation > 0 ? n->a.dilation : 1; /* pools have none */
    int64_t reach = dilation * (kernel - 1) + 1, room = in + 2 * (int64_t)n->a.pad - reach;
    if (kernel < 1 || room < 0)
        return es_fail(err, ES_INVALID, NULL, "a kernel of %d (reach %lld) does not fit a size of %d with padding %d",
                       kernel, (long long)reach, in, n->a.pad);
    *out = (int32_t)(room / n->a.stride + 1);
    return ES_OK;
}

es_status kn_pool_infer(const kn_node *n, const kn_shape *x, kn_shape *y, es_error *err)
{
    int32_t oh, ow;
    if (x->rank != 4)
        return es_fail(err, ES_INVALID, NULL, "images must be [n, h, w, c]");
    if (n->a.stride < 1 || n->a.kernel < 1 || n->a.pad < 0 || n->a.pad >= n->a.kernel)
        return es_fail(
            err, ES_INVALID, NULL,
            "kernel %d, stride %d, pad %d: kernel and stride are at least 1, pad at least 0 and below the kernel",
            n->a.kernel, n->a.stride, n->a.pad);
    ES_RETURN(kn_window_size(n, x->d[1], n->a.kernel, &oh, err));
    ES_RETURN(kn_window_size(n, x->d[2], n->a.kernel, &ow, err));
    *y = KN_SHAPE(x->d[0], oh, ow, x->d[3]);
    return ES_OK;
}
