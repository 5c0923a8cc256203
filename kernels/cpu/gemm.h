/* gemm.h - single-threaded matrix products for one piece of work.
 *
 *     kn_cpu_gemm(m, n, k, a, lda, 1, b, ldb, c, ldc, true);      // C[m,n] += A[m,k] B[k,n]
 *     kn_cpu_gemm(m, n, k, a, 1, lda, b, ldb, c, ldc, false);     // C[m,n]  = A[k,m]^T B[k,n]
 *
 * A is addressed by two strides, so that it may be stored either way and be a slice; B and C have a leading dimension. A transposed B (weights
 * [out][in] in a forward product) is copied once per op, not per piece, by kn_cpu_turn: it is small where this kernel is used.
 *
 * Two ways: an own register-tiled kernel that reads A and B in place (nothing is packed, which is what makes short and thin products slow in a
 * general library), and OpenBLAS with one thread where the product is large enough to repay its packing. The choice depends on
 * the shape alone.
 */
#ifndef KN_CPU_GEMM_H
#define KN_CPU_GEMM_H

#include <stdbool.h>
#include <stdint.h>

void kn_cpu_gemm(int m, int n, int k, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t ldb,
                 float *c, int64_t ldc, bool add);

/* C[m,n] (+)= A B with either operand transposed, stored row-major: for products that are not worth preparing for. */
void kn_cpu_sgemm(bool ta, bool tb, int m, int n, int k, const float *a, int64_t lda, const float *b, int64_t ldb,
                  float *c, int64_t ldc, bool add);

/* to[c][r] = from[r][c]; rows of `to` are `ld` long, a multiple of 16 that holds all rows, and filled with zeros. */
void kn_cpu_turn(float *to, int64_t ld, const float *from, int64_t ld_from, int rows, int cols);

#endif
