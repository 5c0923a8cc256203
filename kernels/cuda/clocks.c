/* A GPU's clocks through NVML, which comes with the driver and not with CUDA: loaded when asked for the first time, never required. Its few declarations stand here,
 * so that nothing is needed to build. */
#include "kernels/device/clocks.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

enum { CLOCK_SM = 1, CLOCK_MEMORY = 2 };
static const unsigned long long HELD_DOWN =
    0x4 | 0x8 | 0x20 | 0x40 | 0x80; /* power cap, hardware slow-down, heat, heat, power brake */

static struct {
    int (*by_bus)(const char *, void **);
    int (*clock)(void *, int, unsigned *);
    int (*most)(void *, int, unsigned *);
    int (*reasons)(void *, unsigned long long *);
    bool there;
} nvml;

static void find(void *library, const char *name, void *to) { *(void **)to = dlsym(library, name); }

static void load(void)
{
    void *l = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    int (*init)(void) = NULL;
    if (!l)
        return;
    find(l, "nvmlInit_v2", &init);
    find(l, "nvmlDeviceGetHandleByPciBusId_v2", &nvml.by_bus);
    find(l, "nvmlDeviceGetClockInfo", &nvml.clock);
    find(l, "nvmlDeviceGetMaxClockInfo", &nvml.most);
    find(l, "nvmlDeviceGetCurrentClocksThrottleReasons", &nvml.reasons);
    nvml.there = init && nvml.by_bus && nvml.clock && nvml.most && init() == 0;
}

void kn_cuda_clocks(int index, kn_clocks *out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    char bus[32];
    void *device = NULL;
    unsigned v = 0;
    unsigned long long reasons = 0;
    pthread_once(&once, load);
    if (!nvml.there || cudaDeviceGetPCIBusId(bus, sizeof bus, index) != cudaSuccess || nvml.by_bus(bus, &device) != 0)
        return;
    out->mhz = nvml.clock(device, CLOCK_SM, &v) == 0 ? (int)v : 0;
    out->most_mhz = nvml.most(device, CLOCK_SM, &v) == 0 ? (int)v : 0;
    out->memory_mhz = nvml.clock(device, CLOCK_MEMORY, &v) == 0 ? (int)v : 0;
    out->throttled = nvml.reasons && nvml.reasons(device, &reasons) == 0 && (reasons & HELD_DOWN) != 0;
    if (out->mhz > 0)
        snprintf(out->text, sizeof out->text, "SM %d of %d MHz, memory %d MHz%s", out->mhz, out->most_mhz,
                 out->memory_mhz, out->throttled ? ", held down" : "");
}
