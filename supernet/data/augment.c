#include "supernet/data/set.h"

#include <string.h>

#include "base/rng.h"

/* Lemire's multiply-shift on 32 given bits: the bias below 2^-20 for n < 4096 does not matter here, and a sample costs one Philox block. */
static int below(uint32_t bits, int n) { return (int)((uint64_t)bits * (uint32_t)n >> 32); }

sn_distort sn_distort_draw(const sn_augment_config *a, int h, int w, uint64_t seed, uint64_t epoch, uint64_t sample)
{
    uint32_t r[4];
    sn_distort out;
    memset(&out, 0, sizeof out);
    es_philox(seed, ES_USE_AUGMENT, epoch, sample, r);
    if (a->pad_crop > 0) {
        out.dy = below(r[0], 2 * a->pad_crop + 1) - a->pad_crop;
        out.dx = below(r[1], 2 * a->pad_crop + 1) - a->pad_crop;
    }
    out.flip = a->flip && (r[2] & 1);
    if (a->cutout > 0) { /* its centre is anywhere in the image, so that parts of it may fall outside */
        out.cut = a->cutout;
        out.cy = below(r[2] & ~1u, h) - a->cutout / 2;
        out.cx = below(r[3], w) - a->cutout / 2;
    }
    return out;
}

/* One row of w pixels from byte or float values, left to right or mirrored; source columns outside are black. */
static void row_make(const sn_images *im, int64_t at, const float *mul, const float *add, const sn_distort *g,
                     bool inside, float *out)
{
    int w = im->w, c = im->c;
    for (int x = 0; x < w; x++) {
        int from = (g->flip ? w - 1 - x : x) + g->dx;
        bool black = !inside || from < 0 || from >= w;
        for (int k = 0; k < c; k++) {
            int64_t i = at + (int64_t)from * c + k;
            float v = black ? 0.0f : im->u8 ? (float)im->u8[i] : im->f32[i];
            out[(int64_t)x * c + k] = v * mul[k] + add[k];
        }
    }
}

void sn_sample_scale(const sn_data *d, const sn_images *im, bool normalise, float *mul, float *add)
{
    for (int k = 0; k < im->c; k++) {
        mul[k] = normalise ? d->inverse[k] : im->u8 ? 1.0f / 255.0f : 1.0f;
        add[k] = normalise ? -d->mean[k] * d->inverse[k] : 0.0f;
    }
}

void sn_sample_make(const sn_data *d, const sn_images *im, int64_t row, bool normalise, const sn_distort *distort,
                    float *out)
{
    static const sn_distort none;
    const sn_distort *g = distort ? distort : &none;
    int h = im->h, w = im->w, c = im->c;
    float mul[SN_DATA_CHANNELS_MAX], add[SN_DATA_CHANNELS_MAX];
    sn_sample_scale(d, im, normalise, mul, add);
    for (int y = 0; y < h; y++) {
        int from = y + g->dy;
        bool inside = from >= 0 && from < h;
        row_make(im, (row * h + (inside ? from : 0)) * w * c, mul, add, g, inside, out + (int64_t)y * w * c);
    }
    for (int y = g->cy < 0 ? 0 : g->cy; y < g->cy + g->cut && y < h; y++)
        for (int x = g->cx < 0 ? 0 : g->cx; x < g->cx + g->cut && x < w; x++)
            memset(out + ((int64_t)y * w + x) * c, 0, (size_t)c * sizeof *out);
}
