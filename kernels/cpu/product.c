#include "kernels/cpu/product.h"

#include "kernels/cpu/gemm.h"

enum {
    LARGE_B = 1 << 17, /* elements of B beyond which a piece needs many rows to repay streaming B through the cache */
    BLAS_B = 1 << 19,  /* and beyond which OpenBLAS's packing wins */
    PARTIAL_MAX = 1 << 15, /* elements of dW up to which every row piece keeps its own */
    PARTIALS = 16,
    ROWS_MIN = 256, /* rows of a dW piece at the least */
};

kn_pieces kn_cpu_row_pieces(int64_t m, int64_t n, int64_t k)
{
    kn_pieces p = kn_pieces_of_rows(m, (n + k) * 4);
    if (n * k > LARGE_B && p.rows < ROWS_MIN)
        p.rows = KN_MIN(m, ROWS_MIN);
    p.rows = (p.rows + 23) / 24 * 24; /* whole register tiles */
    p.count = (m + p.rows - 1) / p.rows;
    return p;
}

/* Columns per piece, where rows alone make too few pieces. */
static int64_t column_block(int64_t n, int64_t row_pieces)
{
    int64_t want = (8 + row_pieces - 1) / row_pieces, step = 3 * KN_LANES;
    if (row_pieces >= 8 || n < 2 * step)
        return n;
    return ((n + want - 1) / want + step - 1) / step * step;
}

void kn_cpu_rows_product(const kn_call *c, int64_t m, int n, int k, const float *x, int64_t ldx, const float *b,
                         int64_t ldb, float *y, int64_t ldy, bool add)
{
    kn_pieces p = kn_cpu_row_pieces(m, n, k);
    const int64_t step = column_block(n, p.count), blocks = (n + step - 1) / step;
    KN_CPU_FOR(c, i, p.count * blocks)
    {
        int64_t from = i / blocks * p.rows, col = i % blocks * step;
        int rows = (int)KN_MIN(p.rows, m - from), cols = (int)KN_MIN(step, n - col);
        if ((int64_t)cols * k > BLAS_B && rows >= 64)
            kn_cpu_sgemm(false, false, rows, cols, k, x + from * ldx, ldx, b + col, ldb, y + from * ldy + col, ldy,
                         add);
        else
            kn_cpu_gemm(rows, cols, k, x + from * ldx, ldx, 1, b + col, ldb, y + from * ldy + col, ldy, add);
    }
}

void kn_cpu_turn_parallel(const kn_call *c, float *to, int64_t ld, const float *from, int64_t ld_from, int rows,
                          int cols)
{
    kn_pieces p = kn_pieces_of(cols, rows * 4, 64 << 10);
    p.rows = (p.rows + KN_LANES - 1) / KN_LANES * KN_LANES;
    p.count = (cols + p.rows - 1) / p.rows;
    KN_CPU_FOR(c, i, p.count)
    {
        int64_t at = i * p.rows;
        kn_cpu_turn(to + at * ld, ld, from + at, ld_from, rows, (int)KN_MIN(p.rows, cols - at));
    }
}

static kn_pieces outer_pieces(int64_t m) { return kn_pieces_at_most(m, KN_MIN(PARTIALS, KN_MAX(m / ROWS_MIN, 1))); }

static bool outer_by_rows(int64_t m, int n, int k)
{
    return (int64_t)n * k <= PARTIAL_MAX && outer_pieces(m).count > 1;
}

size_t kn_cpu_outer_scratch(int64_t m, int n, int k)
{
    return outer_by_rows(m, n, k) ? sizeof(float) * (size_t)(outer_pieces(m).count * n * k) : 0;
}

void kn_cpu_outer_product(const kn_call *c, int64_t m, int n, int k, const float *dy, int64_t ldy, const float *x,
                          int64_t ldx, float *dw, int64_t ldw, bool add, void *scratch)
{
    if (outer_by_rows(m, n, k)) {
        kn_pieces p = outer_pieces(m);
        float *partial = scratch;
        KN_CPU_FOR(c, i, p.count)
        {
            int64_t from = i * p.rows;
            kn_cpu_gemm(n, k, (int)KN_MIN(p.rows, m - from), dy + from * ldy, 1, ldy, x + from * ldx, ldx,
                        partial + i * n * k, k, false);
        }
        kn_cpu_fold(c, dw, ldw, partial, n, k, p.count, add);
        return;
    }
    int64_t step = (int64_t)n * k > BLAS_B ? 192 : 48, pieces = (n + step - 1) / step;
    bool blas = (int64_t)n * k > BLAS_B && m >= 64;
    KN_CPU_FOR(c, i, pieces)
    {
        int64_t from = i * step;
        int rows = (int)KN_MIN(step, n - from);
        if (blas)
            kn_cpu_sgemm(true, false, rows, k, (int)m, dy + from, ldy, x, ldx, dw + from * ldw, ldw, add);
        else
            kn_cpu_gemm(rows, k, (int)m, dy + from, 1, ldy, x, ldx, dw + from * ldw, ldw, add);
    }
}

void kn_cpu_fold(const kn_call *c, float *to, int64_t ld, const float *partial, int64_t rows, int64_t cols,
                 int64_t pieces, bool add)
{
    kn_pieces p = kn_pieces_of(rows, cols * pieces * 4, 64 << 10);
    KN_CPU_FOR(c, i, p.count)
    {
        for (int64_t r = i * p.rows; r < KN_MIN((i + 1) * p.rows, rows); r++)
            for (int64_t j = 0; j < cols; j += KN_LANES) {
                int n = (int)KN_MIN(KN_LANES, cols - j);
                const float *from = partial + r * cols + j;
                kn_vec s = kn_vec_load_n(from, n);
                for (int64_t q = 1; q < pieces; q++)
                    s += kn_vec_load_n(from + q * rows * cols, n);
                float *t = to + r * ld + j;
                kn_vec_store_n(t, add ? s + kn_vec_load_n(t, n) : s, n);
            }
    }
}
