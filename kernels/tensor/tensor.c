#include "kernels/tensor/tensor.h"

#include <stdio.h>

kn_shape kn_shape_make(int rank, const int32_t *d)
{
    ES_ASSERT(rank >= 0 && rank <= KN_RANK_MAX);
    kn_shape s = {.rank = rank, .d = {1, 1, 1, 1, 1}};
    for (int i = 0; i < rank; i++)
        s.d[i] = d[i];
    return s;
}

int64_t kn_shape_count(const kn_shape *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++)
        n *= s->d[i];
    return n;
}

bool kn_shape_equal(const kn_shape *a, const kn_shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->d[i] != b->d[i])
            return false;
    return true;
}

const char *kn_shape_text(const kn_shape *s, char buf[64])
{
    size_t at = (size_t)snprintf(buf, 64, "[");
    for (int i = 0; i < s->rank && at < 62; i++)
        at += (size_t)snprintf(buf + at, 64 - at, i == 0 ? "%d" : ", %d", s->d[i]);
    if (at < 63)
        snprintf(buf + at, 64 - at, "]");
    return buf;
}

size_t kn_dtype_bytes(kn_dtype t)
{
    static const uint8_t bytes[KN_DTYPE_COUNT] = {[KN_F32] = 4, [KN_BF16] = 2, [KN_I32] = 4, [KN_U8] = 1};
    ES_ASSERT((unsigned)t < KN_DTYPE_COUNT);
    return bytes[t];
}

const char *kn_dtype_name(kn_dtype t)
{
    static const char *const names[KN_DTYPE_COUNT] = {
        [KN_F32] = "f32", [KN_BF16] = "bf16", [KN_I32] = "i32", [KN_U8] = "u8"};
    return (unsigned)t < KN_DTYPE_COUNT ? names[t] : "?";
}

kn_box kn_box_full(const kn_shape *s)
{
    kn_box b = {{0}, {0}};
    for (int i = 0; i < KN_RANK_MAX; i++)
        b.extent[i] = i < s->rank ? s->d[i] : 1;
    return b;
}

bool kn_tensor_contiguous(const kn_tensor *t)
{
    int64_t want = 1;
    for (int i = t->shape.rank - 1; i >= 0; i--) {
        if (t->shape.d[i] != 1 && t->stride[i] != want)
            return false;
        want *= t->shape.d[i];
    }
    return true;
}
