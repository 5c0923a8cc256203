/* optim_internal.h - what a back end does for the optimisers: two passes over flat buffers.
 *
 *     kn_optim_pass p = {...};
 *     k->norm(dev, &p, err);       // only with clip_norm: p.norm = the L2 norm of the value-clipped gradients of the trained set
 *     k->update(dev, &p, err);     // values, state, moving average, gradients zeroed; p.partial = sums of squares of the raw gradients
 *
 * Buffers are cut into blocks of KN_OPTIM_BLOCK elements, the alignment of parameters, so one flag byte says all about a block; pieces of
 * KN_OPTIM_PIECE blocks are what is summed first. The pieces' sums are added in order, so no result depends on who computed which piece.
 * Everything is a device pointer. Neither pass waits for the device.
 */
#ifndef KN_OPTIM_INTERNAL_H
#define KN_OPTIM_INTERNAL_H

#include "kernels/device/device.h"
#include "kernels/optim/optim.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { KN_OPTIM_BLOCK = 64, KN_OPTIM_PIECE = 256 };
enum { KN_OPTIM_TRAIN = 1, KN_OPTIM_DECAY = 2 }; /* flags of a block */

typedef struct kn_optim_pass {
    const kn_optim_config *c;
    int64_t blocks, pieces;
    const uint8_t *flags;   /* [blocks] */
    float *w, *g;           /* [blocks * KN_OPTIM_BLOCK], as all state */
    float *a, *b;           /* SGD: a = momentum; Adam: a = m, b = v; NULL where there is none */
    float *ema;             /* NULL: none; follows every block, trained or not */
    void *shadow;           /* bf16 values to be refreshed with w where the back end sets `writes_shadow` */
    float lr, bias1, bias2; /* bias: 1 - beta^t, Adam */
    double *partial;        /* [pieces] */
    float *norm;            /* one number */
} kn_optim_pass;

typedef struct kn_optim_kernels {
    es_status (*norm)(kn_device *dev, const kn_optim_pass *p, es_error *err);
    es_status (*update)(kn_device *dev, const kn_optim_pass *p, es_error *err);
    bool writes_shadow;
} kn_optim_kernels;

extern const kn_optim_kernels kn_host_optim; /* kernels/cpu/optim.c, of "cpu" and "reference" */

#ifdef __cplusplus
}
#endif
#endif
