#include "kernels/cpu/gemm.h"

#include "kernels/cpu/vec.h"

#include <cblas.h>
#include <pthread.h>

/* One tile of C: mr rows, nv vectors of columns (the last one `tail` wide), all of k. mr and nv are constants after inlining, and the
 * accumulators live in registers: 8 x 3, 12 x 2 or 16 x 1 of the 32 there are. */
KN_INLINE void tile(const int mr, const int nv, int tail, int k, const float *a, int64_t ar, int64_t ac, const float *b,
                    int64_t ldb, float *c, int64_t ldc, bool add)
{
    kn_vec acc[16][3];
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++)
            acc[i][j] = (kn_vec){};
    if (tail == KN_LANES) {
        for (int p = 0; p < k; p++) {
            kn_vec v[3];
#pragma GCC unroll 3
            for (int j = 0; j < nv; j++)
                v[j] = kn_vec_load(b + j * KN_LANES);
#pragma GCC unroll 16
            for (int i = 0; i < mr; i++) {
                kn_vec s = kn_vec_set(a[i * ar]);
#pragma GCC unroll 3
                for (int j = 0; j < nv; j++)
                    acc[i][j] += s * v[j];
            }
            a += ac;
            b += ldb;
        }
    } else {
        for (int p = 0; p < k; p++) {
            kn_vec v[3];
#pragma GCC unroll 3
            for (int j = 0; j < nv; j++)
                v[j] = j < nv - 1 ? kn_vec_load(b + j * KN_LANES) : kn_vec_load_n(b + j * KN_LANES, tail);
#pragma GCC unroll 16
            for (int i = 0; i < mr; i++) {
                kn_vec s = kn_vec_set(a[i * ar]);
#pragma GCC unroll 3
                for (int j = 0; j < nv; j++)
                    acc[i][j] += s * v[j];
            }
            a += ac;
            b += ldb;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++) {
            float *to = c + i * ldc + j * KN_LANES;
            int n = j < nv - 1 ? KN_LANES : tail;
            kn_vec_store_n(to, add ? acc[i][j] + kn_vec_load_n(to, n) : acc[i][j], n);
        }
}

#define KN_TILE(MR, NV)              \
    for (; m - i >= (MR); i += (MR)) \
    tile(MR, NV, tail, k, a + i * ar, ar, ac, b, ldb, c + i * ldc, ldc, add)

#define KN_COLUMN(NV, MR, ...)                                                                                        \
    static __attribute__((noinline)) void column_##NV(int m, int tail, int k, const float *a, int64_t ar, int64_t ac, \
                                                      const float *b, int64_t ldb, float *c, int64_t ldc, bool add)   \
    {                                                                                                                 \
        int i = 0;                                                                                                    \
        KN_TILE(MR, NV);                                                                                              \
        __VA_ARGS__                                                                                                   \
        KN_TILE(4, NV);                                                                                               \
        KN_TILE(2, NV);                                                                                               \
        KN_TILE(1, NV);                                                                                               \
    }
KN_COLUMN(3, 8, )
KN_COLUMN(2, 12, KN_TILE(8, 2);)
KN_COLUMN(1, 16, KN_TILE(8, 1);)

static void gemm_tiled(int m, int n, int k, const float *a, int64_t ar, int64_t ac, const float *b, int64_t ldb,
                       float *c, int64_t ldc, bool add)
{
    int left = n;
    while (left > 0) {
        int vecs = (left + KN_LANES - 1) / KN_LANES, nv = vecs == 4 ? 2 : vecs < 3 ? vecs : 3;
        int wide = nv * KN_LANES, tail = left >= wide ? KN_LANES : left - (nv - 1) * KN_LANES;
        if (nv == 3)
            column_3(m, tail, k, a, ar, ac, b, ldb, c, ldc, add);
        else if (nv == 2)
            column_2(m, tail, k, a, ar, ac, b, ldb, c, ldc, add);
        else
            column_1(m, tail, k, a, ar, ac, b, ldb, c, ldc, add);
        b += wide;
        c += wide;
        left -= wide;
    }
}

enum { K_BLOCK = 256 };

void kn_cpu_gemm(int m, int n, int k, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t ldb,
                 float *c, int64_t ldc, bool add)
{
    for (int p = 0; p < k; p += K_BLOCK) {
        int kb = k - p < K_BLOCK ? k - p : K_BLOCK;
        gemm_tiled(m, n, kb, a + p * a_col, a_row, a_col, b + p * ldb, ldb, c, ldc, add || p > 0);
    }
}

/* Every product is one thread's: the pieces are what runs in parallel. */
static void blas_single(void) { openblas_set_num_threads(1); }

void kn_cpu_sgemm(bool ta, bool tb, int m, int n, int k, const float *a, int64_t lda, const float *b, int64_t ldb,
                  float *c, int64_t ldc, bool add)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, blas_single);
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, 1.0f, a,
                (int)lda, b, (int)ldb, add ? 1.0f : 0.0f, c, (int)ldc);
}

/* Lane l of the result is lane which[l] of a and b laid side by side. */
KN_INLINE kn_vec pick(kn_vec a, kn_vec b, kn_ivec which)
{
#ifdef __clang__ /* builds the fuzzers only, and has this builtin for constants alone */
    kn_vec r;
    for (int l = 0; l < KN_LANES; l++)
        r[l] = which[l] < KN_LANES ? a[which[l]] : b[which[l] - KN_LANES];
    return r;
#else
    return __builtin_shuffle(a, b, which);
#endif
}

/* One step of a 16 x 16 transpose: swaps the off-diagonal blocks of size `step`. */
KN_INLINE void turn_step(kn_vec r[KN_LANES], const int step)
{
    kn_ivec low, high;
    for (int l = 0; l < KN_LANES; l++) {
        low[l] = l & step ? KN_LANES + (l ^ step) : l;
        high[l] = l & step ? KN_LANES + l : l ^ step;
    }
#pragma GCC unroll 16
    for (int i = 0; i < KN_LANES; i++)
        if ((i & step) == 0) {
            kn_vec a = r[i], b = r[i + step];
            r[i] = pick(a, b, low);
            r[i + step] = pick(a, b, high);
        }
}

static void turn_block(float *to, int64_t ld, const float *from, int64_t ld_from, int rows, int cols)
{
    kn_vec r[KN_LANES];
    for (int i = 0; i < KN_LANES; i++)
        r[i] = i < rows ? kn_vec_load_n(from + i * ld_from, cols) : (kn_vec){};
    turn_step(r, 8);
    turn_step(r, 4);
    turn_step(r, 2);
    turn_step(r, 1);
    for (int i = 0; i < cols; i++)
        kn_vec_store(to + i * ld, r[i]);
}

void kn_cpu_turn(float *to, int64_t ld, const float *from, int64_t ld_from, int rows, int cols)
{
    for (int r = 0; r < rows; r += KN_LANES)
        for (int c = 0; c < cols; c += KN_LANES)
            turn_block(to + c * ld + r, ld, from + r * ld_from + c, ld_from, rows - r < KN_LANES ? rows - r : KN_LANES,
                       cols - c < KN_LANES ? cols - c : KN_LANES);
}
