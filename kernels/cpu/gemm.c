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

void kn_cpu_turn(float *to, int64_t ld, const float *from, int64_t ld_from, int rows, int cols)
{
    enum { B = 16 };
    for (int c0 = 0; c0 < cols; c0 += B)
        for (int r0 = 0; r0 < rows; r0 += B) {
            int c1 = c0 + B < cols ? c0 + B : cols, r1 = r0 + B < rows ? r0 + B : rows;
            for (int c = c0; c < c1; c++)
                for (int r = r0; r < r1; r++)
                    to[c * ld + r] = from[r * ld_from + c];
        }
    for (int c = 0; c < cols; c++)
        for (int64_t r = rows; r < ld; r++)
            to[c * ld + r] = 0.0f;
}
