/* profile_cuda.c - where the time of a program on the GPU goes, kernel by kernel, from CUPTI's activity records; a library that the driver loads into any CUDA program:
 *
 *     cc -shared -fPIC -O2 -I/usr/local/cuda/include scripts/profile_cuda.c -o profile_cuda.so -L/usr/local/cuda/lib64 -lcupti
 *     CUDA_INJECTION64_PATH=$PWD/profile_cuda.so build/tests/bench/bench_gpt --device cuda:0 --precision bf16 --batch 16 --single max
 *
 * Prints, for each name (its template arguments kept, its parameters not): launches, milliseconds in all, microseconds each; the dearest first. Kernels that overlap count twice.
 * Not part of the build: CUPTI is not among what it needs. */
#include <cupti.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES = 4096, BUFFER = 4 << 20, SHOWN = 45, NAME = 110 };

typedef struct entry {
    char name[NAME];
    uint64_t ns, count;
} entry;

static entry table[NAMES];
static int names;

static void add(const char *name, uint64_t ns)
{
    char text[NAME];
    int i = 0;
    snprintf(text, sizeof text, "%s", name);
    while (i < names && strcmp(table[i].name, text) != 0)
        i++;
    if (i == NAMES)
        return;
    if (i == names)
        memcpy(table[names++].name, text, sizeof text);
    table[i].ns += ns;
    table[i].count++;
}

static void CUPTIAPI give(uint8_t **buffer, size_t *size, size_t *most)
{
    *size = BUFFER;
    *most = 0;
    *buffer = aligned_alloc(8, BUFFER);
}

static void CUPTIAPI take(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
    CUpti_Activity *r = NULL;
    (void)context, (void)stream, (void)size;
    while (cuptiActivityGetNextRecord(buffer, valid, &r) == CUPTI_SUCCESS) {
        if (r->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL)
            continue;
        const CUpti_ActivityKernel4 *k = (const CUpti_ActivityKernel4 *)r; /* later versions begin alike */
        add(k->name, k->end - k->start);
    }
    free(buffer);
}

static int dearest(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    return (x->ns < y->ns) - (x->ns > y->ns);
}

static void finish(void)
{
    uint64_t all = 0;
    cuptiActivityFlushAll(1);
    qsort(table, (size_t)names, sizeof *table, dearest);
    for (int i = 0; i < names; i++)
        all += table[i].ns;
    fprintf(stderr, "%9s %9s %7s  kernel\n%9.3f ms in all\n", "launches", "ms", "us each", (double)all * 1e-6);
    for (int i = 0; i < names && i < SHOWN; i++)
        fprintf(stderr, "%9llu %9.3f %7.1f  %s\n", (unsigned long long)table[i].count, (double)table[i].ns * 1e-6,
                (double)table[i].ns * 1e-3 / (double)table[i].count, table[i].name);
}

int InitializeInjection(void);
int InitializeInjection(void)
{
    cuptiActivityRegisterCallbacks(give, take);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
    atexit(finish);
    return 1;
}
