/* walk.h - one way to go through up to three tensors that share an index space, whatever their strides.
 *
 *     kn_walk w = kn_walk_of(&out->shape);
 *     kn_walk_add(&w, out); kn_walk_add(&w, a); kn_walk_add(&w, b);     // a and b broadcast: stride 0 where they have size 1
 *     kn_walk_run(c, &w, body, ctx);                                     // body gets blocks of rows, on all threads
 *
 * Dimensions that are adjacent in every operand are merged, so dense operands of one shape become one row. The operands' places are in
 * elements. Each block is a piece by itself: the body must only write operand 0.
 */
#ifndef KN_CPU_WALK_H
#define KN_CPU_WALK_H

#include "kernels/cpu/cpu.h"

enum { KN_WALK_MAX = 3 };

typedef struct kn_walk {
    int rank, n;
    int64_t d[KN_RANK_MAX];
    int64_t stride[KN_WALK_MAX][KN_RANK_MAX];
    char *p[KN_WALK_MAX];
    size_t bytes[KN_WALK_MAX];
} kn_walk;

/* rows x cols elements: operand i at p[i], row[i] and col[i] elements apart. */
typedef struct kn_block {
    int64_t rows, cols;
    char *p[KN_WALK_MAX];
    int64_t row[KN_WALK_MAX], col[KN_WALK_MAX];
} kn_block;

typedef void (*kn_walk_body)(const kn_block *b, const void *ctx);

kn_walk kn_walk_of(const kn_shape *shape);
void kn_walk_add(kn_walk *w, const kn_tensor *t);
/* With strides per dimension of the walk's shape, in elements. */
void kn_walk_add_strides(kn_walk *w, void *p, size_t bytes, const int64_t *stride);
void kn_walk_run(const kn_call *c, kn_walk *w, kn_walk_body body, const void *ctx);

/* Copies (or adds, f32 only) operand 1 to operand 0. */
void kn_walk_copy(const kn_call *c, kn_walk *w, bool add);

#endif
