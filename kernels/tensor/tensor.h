/* tensor.h - shapes, element types and boxes: the vocabulary of kernels/.
 *
 * Shapes are row-major and at most KN_RANK_MAX long. Images are NHWC. Layouts of weights (chosen so that a subnet's weight is a strided view of the
 * supernet's and its innermost dimension stays contiguous):
 *     linear           [out][in]
 *     conv             [out][kh][kw][in / groups]
 *     depthwise conv   [kh][kw][channels]
 * A box is a start and an extent per dimension: width prefixes, centred kernels and single rows are all boxes.
 */
#ifndef KN_TENSOR_H
#define KN_TENSOR_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { KN_RANK_MAX = 5 };

typedef enum kn_dtype { KN_F32, KN_BF16, KN_I32, KN_U8, KN_DTYPE_COUNT } kn_dtype;

typedef struct kn_shape {
    int32_t rank;
    int32_t d[KN_RANK_MAX]; /* unused entries are 1 */
} kn_shape;

typedef struct kn_box {
    int32_t start[KN_RANK_MAX];
    int32_t extent[KN_RANK_MAX];
} kn_box;

/* A tensor as a kernel sees it: strides in elements, innermost stride 1 unless said otherwise. */
typedef struct kn_tensor {
    void *p;
    kn_dtype dtype;
    kn_shape shape;
    int64_t stride[KN_RANK_MAX];
} kn_tensor;

kn_shape kn_shape_make(int rank, const int32_t *d);
#define KN_SHAPE(...) kn_shape_make((int)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)), (int32_t[]){__VA_ARGS__})
int64_t kn_shape_count(const kn_shape *s);
bool kn_shape_equal(const kn_shape *a, const kn_shape *b);
const char *kn_shape_text(const kn_shape *s, char buf[64]); /* "[8, 32, 32, 3]" */
size_t kn_dtype_bytes(kn_dtype t);
const char *kn_dtype_name(kn_dtype t);
kn_box kn_box_full(const kn_shape *s);
bool kn_tensor_contiguous(const kn_tensor *t);

#ifdef __cplusplus
}
#endif
#endif
