#include "tests/supernet/make.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

int make_pixel(int sample, int y, int x) { return (sample * 31 + y * 7 + x * 3) % 256; }

static uint8_t *idx_head(int rank, const int *d, size_t bytes, size_t *size)
{
    *size = 4 + 4 * (size_t)rank + bytes;
    uint8_t *p = calloc(1, *size);
    p[2] = 8;
    p[3] = (uint8_t)rank;
    for (int i = 0; i < rank; i++)
        for (int b = 0; b < 4; b++)
            p[4 + 4 * i + b] = (uint8_t)(d[i] >> (24 - 8 * b));
    return p;
}

uint8_t *make_idx_images(int n, int h, int w, size_t *size)
{
    uint8_t *p = idx_head(3, (int[]){n, h, w}, (size_t)n * (size_t)h * (size_t)w, size), *to = p + 16;
    for (int i = 0; i < n; i++)
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++)
                *to++ = (uint8_t)make_pixel(i, y, x);
    return p;
}

uint8_t *make_idx_labels(int n, int classes, size_t *size)
{
    uint8_t *p = idx_head(1, &n, (size_t)n, size);
    for (int i = 0; i < n; i++)
        p[8 + i] = (uint8_t)(i % classes);
    return p;
}

void make_file(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        abort();
}

void make_bars(const char *prefix, int n, int side, int classes, uint64_t seed)
{
    char path[1200];
    size_t images_size, labels_size;
    uint8_t *images = make_idx_images(n, side, side, &images_size), *labels = make_idx_labels(n, classes, &labels_size);
    es_rng r = es_rng_make(seed, ES_USE_TEST, 0);
    for (int i = 0; i < n; i++) {
        uint8_t *px = images + 16 + (size_t)i * (size_t)side * (size_t)side;
        int k = (int)es_rng_below(&r, (uint32_t)classes);
        labels[8 + i] = (uint8_t)k;
        for (int y = 0; y < side; y++)
            for (int x = 0; x < side; x++) {
                int along = k % 2 ? x : y, at = 1 + k / 2 * (side - 2) / ((classes + 1) / 2);
                px[y * side + x] = (uint8_t)(es_rng_below(&r, 90) + (along == at || along == at + 1 ? 120 : 0));
            }
    }
    snprintf(path, sizeof path, "%s-images-idx3-ubyte", prefix);
    make_file(path, images, images_size);
    snprintf(path, sizeof path, "%s-labels-idx1-ubyte", prefix);
    make_file(path, labels, labels_size);
    free(images);
    free(labels);
}
