/* clocks.h - how fast a device runs at this moment, noted beside what was timed on it.
 *
 *     kn_clocks c; kn_device_clocks(dev, &c); printf("%s\n", c.text);     // "SM 1980 of 1980 MHz, memory 2619 MHz"; "2400 of 3500 MHz"; "" unknown
 *
 * A GPU: NVML, loaded when it is there. A processor: cpufreq's current frequency, else what /proc/cpuinfo says, averaged over the processors.
 */
#ifndef KN_CLOCKS_H
#define KN_CLOCKS_H

#include "kernels/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kn_clocks {
    int mhz, most_mhz, memory_mhz; /* 0: unknown */
    bool throttled;                /* held down by power or heat */
    char text[96];
} kn_clocks;

void kn_device_clocks(kn_device *dev, kn_clocks *out);
void kn_cuda_clocks(int index, kn_clocks *out); /* kernels/cuda/clocks.c */

#ifdef __cplusplus
}
#endif
#endif
