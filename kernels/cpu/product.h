/* product.h - whole matrix products, cut into pieces: what matmul, linear layers and 1x1 convolutions are made of.
 *
 *     kn_cpu_rows_product(c, m, n, k, x, ldx, b, ldb, y, ldy, false);    // Y[m,n]  = X[m,k] B[k,n], m long
 *     kn_cpu_outer_product(c, m, n, k, dy, ldy, x, ldx, dw, ldw, true, scratch); // dW[n,k] += dY[m,n]^T X[m,k], m long
 *
 * rows_product: pieces are blocks of rows. outer_product: pieces are blocks of rows with a partial sum each, added in order, or blocks of dW's rows
 * where dW is large (kn_cpu_outer_scratch says how much room the first way needs).
 */
#ifndef KN_CPU_PRODUCT_H
#define KN_CPU_PRODUCT_H

#include "kernels/cpu/cpu.h"

void kn_cpu_rows_product(const kn_call *c, int64_t m, int n, int k, const float *x, int64_t ldx, const float *b,
                         int64_t ldb, float *y, int64_t ldy, bool add);

size_t kn_cpu_outer_scratch(int64_t m, int n, int k);
void kn_cpu_outer_product(const kn_call *c, int64_t m, int n, int k, const float *dy, int64_t ldy, const float *x,
                          int64_t ldx, float *dw, int64_t ldw, bool add, void *scratch);

/* kn_cpu_turn on all threads. */
void kn_cpu_turn_parallel(const kn_call *c, float *to, int64_t ld, const float *from, int64_t ld_from, int rows,
                          int cols);

/* Row pieces of a product with k inputs and n outputs per row. */
kn_pieces kn_cpu_row_pieces(int64_t m, int64_t n, int64_t k);
static inline int64_t kn_cpu_padded(int64_t n) { return (n + KN_LANES - 1) / KN_LANES * KN_LANES; }

#endif
