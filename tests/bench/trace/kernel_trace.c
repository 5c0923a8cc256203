/* kernel_trace.c - a library that the CUDA driver loads into a program (CUDA_INJECTION64_PATH) and that writes, when the program ends, one line a kernel:
 *
 *     launches,nanoseconds,mangled name                  into the file named by KERNEL_TRACE
 *
 * From CUPTI's activity records, so that a whole step costs no more than a step; kernel_times.sh builds and uses it. Kernels of programmatic launches wait for each
 * other inside their time: with CUDA_LAUNCH_BLOCKING=1 each is alone. Nothing of the project is linked in. */
#include <cupti.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER_BYTES = 8 << 20, NAMES_MOST = 1024 };

typedef struct kernel {
    char *name;
    unsigned long long launches, ns;
} kernel;

static kernel kernels[NAMES_MOST];
static int n_kernels;

static void CUPTIAPI buffer_wanted(uint8_t **buffer, size_t *size, size_t *records)
{
    *buffer = aligned_alloc(8, BUFFER_BYTES);
    *size = *buffer ? BUFFER_BYTES : 0;
    *records = 0;
}

static void count(const char *name, unsigned long long ns)
{
    int i = 0;
    while (i < n_kernels && strcmp(kernels[i].name, name) != 0)
        i++;
    if (i == NAMES_MOST)
        return;
    if (i == n_kernels)
        kernels[n_kernels++].name = strdup(name);
    kernels[i].launches++;
    kernels[i].ns += ns;
}

static void CUPTIAPI buffer_full(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
    CUpti_Activity *r = NULL;
    (void)context;
    (void)stream;
    (void)size;
    while (cuptiActivityGetNextRecord(buffer, valid, &r) == CUPTI_SUCCESS) {
        if (r->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
            const CUpti_ActivityKernel9 *k = (const void *)r;
            count(k->name, k->end - k->start);
        } else if (r->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
            const CUpti_ActivityMemset4 *m = (const void *)r;
            count("memset", m->end - m->start);
        }
    }
    free(buffer);
}

static void finish(void)
{
    const char *path = getenv("KERNEL_TRACE");
    FILE *f = path ? fopen(path, "w") : stderr;
    cuptiActivityFlushAll(1);
    if (f == NULL)
        return;
    for (int i = 0; i < n_kernels; i++)
        fprintf(f, "%llu,%llu,%s\n", kernels[i].launches, kernels[i].ns, kernels[i].name);
    fflush(f);
}

int InitializeInjection(void);
int InitializeInjection(void)
{
    cuptiActivityRegisterCallbacks(buffer_wanted, buffer_full);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMSET);
    atexit(finish);
    return 1;
}
