/* philox.cuh - Philox4x32-10 as in base/rng.c; the counter's layout must stay the same there and here (tests/kernels compares masks, tests/supernet batches). */
#ifndef KN_PHILOX_CUH
#define KN_PHILOX_CUH

#include <stdint.h>

static __device__ inline void kn_philox(uint64_t seed, uint32_t use, uint64_t step, uint64_t index, uint32_t out[4])
{
    uint64_t low = index ^ ((uint64_t)use << 56);
    uint32_t c[4] = {(uint32_t)low, (uint32_t)(low >> 32), (uint32_t)step, (uint32_t)(step >> 32)};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint32_t h0 = __umulhi(0xD2511F53u, c[0]), l0 = 0xD2511F53u * c[0], h1 = __umulhi(0xCD9E8D57u, c[2]),
                 l1 = 0xCD9E8D57u * c[2];
        uint32_t n0 = h1 ^ c[1] ^ k0, n2 = h0 ^ c[3] ^ k1;
        c[0] = n0, c[1] = l1, c[2] = n2, c[3] = l0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++)
        out[i] = c[i];
}

#endif
