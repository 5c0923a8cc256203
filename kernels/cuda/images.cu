/* Batches of images from a data set in device memory (kernels/device/images.h). A block makes one sample: its first thread draws, all of them copy. */
#include "base/rng.h"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/philox.cuh"

struct distort {
    int dy, dx, cut, cy, cx;
    bool flip;
};

static __device__ int below(uint32_t bits, int n) { return (int)((uint64_t)bits * (uint32_t)n >> 32); }

static __device__ distort draw(const kn_images &a, uint32_t row)
{
    uint32_t r[4];
    distort g = {0, 0, 0, 0, 0, false};
    if (!a.distort)
        return g;
    kn_philox(a.seed, ES_USE_AUGMENT, a.epoch, row, r);
    if (a.pad_crop > 0) {
        g.dy = below(r[0], 2 * a.pad_crop + 1) - a.pad_crop;
        g.dx = below(r[1], 2 * a.pad_crop + 1) - a.pad_crop;
    }
    g.flip = a.flip && (r[2] & 1);
    if (a.cutout > 0) {
        g.cut = a.cutout;
        g.cy = below(r[2] & ~1u, a.h) - a.cutout / 2;
        g.cx = below(r[3], a.w) - a.cutout / 2;
    }
    return g;
}

static __global__ void __launch_bounds__(256) images_kernel(const __grid_constant__ kn_images a)
{
    __shared__ distort shared;
    const uint32_t row = a.rows[blockIdx.x];
    const int64_t size = (int64_t)a.h * a.w * a.c;
    if (threadIdx.x == 0) {
        shared = draw(a, row);
        a.out_labels[blockIdx.x] = a.labels[row];
    }
    __syncthreads();
    const distort g = shared;
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
        const int k = i % a.c, x = i / a.c % a.w, y = i / a.c / a.w;
        const int fy = y + g.dy, fx = (g.flip ? a.w - 1 - x : x) + g.dx;
        const int64_t at = row * size + ((int64_t)fy * a.w + fx) * a.c + k;
        float v = 0.f;
        if (fy >= 0 && fy < a.h && fx >= 0 && fx < a.w)
            v = a.dtype == KN_U8 ? (float)((const uint8_t *)a.pixels)[at] : ((const float *)a.pixels)[at];
        v = __fadd_rn(__fmul_rn(v, a.mul[k]), a.add[k]);
        if (y >= g.cy && y < g.cy + g.cut && x >= g.cx && x < g.cx + g.cut)
            v = 0.f;
        a.out[blockIdx.x * size + i] = v;
    }
}

es_status kn_cuda_images(kn_device *d, const kn_images *im, es_error *err)
{
    images_kernel<<<(unsigned)im->n, 256, 0, ((kn_cuda_device *)d)->stream>>>(*im);
    KN_LAUNCHED("images");
    return ES_OK;
}
