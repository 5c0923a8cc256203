/* make.h - small data sets for the tests, written as files or made in memory. */
#ifndef ES_TESTS_SUPERNET_MAKE_H
#define ES_TESTS_SUPERNET_MAKE_H

#include <stddef.h>
#include <stdint.h>

/* IDX bytes of n images h x w (pixel = a function of sample, row and column) or of their labels (sample % classes). Caller frees. */
uint8_t *make_idx_images(int n, int h, int w, size_t *size);
uint8_t *make_idx_labels(int n, int classes, size_t *size);
int make_pixel(int sample, int y, int x);
void make_file(const char *path, const void *data, size_t size);

/* A learnable set: class k has a bright bar at its own place, with noise. PREFIX-images-idx3-ubyte and PREFIX-labels-idx1-ubyte. */
void make_bars(const char *prefix, int n, int side, int classes, uint64_t seed);

#endif
