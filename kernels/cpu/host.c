/* The devices that are this machine: "cpu" with the fast kernels, "reference" with the naive ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "base/arena.h"
#include "kernels/device/device_internal.h"
#include "kernels/graph/ops.h"

static void host_close(kn_device *d) { free(d); }

static es_status host_memory(kn_device *d, size_t *free_bytes, size_t *total_bytes, es_error *err)
{
    (void)d;
    FILE *f = fopen("/proc/meminfo", "r");
    if (f == NULL)
        return es_fail_errno(err, "/proc/meminfo", "cannot be read");
    char line[256];
    unsigned long long kib = 0;
    *free_bytes = *total_bytes = 0;
    while (fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "MemTotal: %llu kB", &kib) == 1)
            *total_bytes = (size_t)kib * 1024;
        else if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            *free_bytes = (size_t)kib * 1024;
    }
    fclose(f);
    return ES_OK;
}

static es_status host_alloc(kn_device *d, size_t bytes, void **out, es_error *err)
{
    /* Big blocks start on a huge page: fewer address translations, and pages already there are not asked for one by one. */
    size_t big = (size_t)4 << 20, align = bytes >= big ? (size_t)2 << 20 : 256, avail = 0, total = SIZE_MAX;
    /* The system would promise more than it has, and kill us later. */
    if (bytes >= big && (host_memory(d, &avail, &total, NULL) != ES_OK || total == 0))
        total = SIZE_MAX;
    if (bytes > total || bytes > SIZE_MAX - align || posix_memalign(out, align, bytes) != 0) {
        *out = NULL;
        return es_fail(err, ES_NO_MEMORY, d->name, "%zu bytes asked for, %zu free of %zu", bytes, avail, total);
    }
    return ES_OK;
}

static void host_free(kn_device *d, void *p)
{
    (void)d;
    free(p);
}

static es_status host_copy(kn_device *d, void *to, const void *from, size_t bytes, es_error *err)
{
    (void)d, (void)err;
    memmove(to, from, bytes);
    return ES_OK;
}

static es_status host_zero(kn_device *d, void *p, size_t bytes, es_error *err)
{
    (void)d, (void)err;
    memset(p, 0, bytes);
    return ES_OK;
}

static es_status host_sync(kn_device *d, es_error *err)
{
    (void)d, (void)err;
    return ES_OK;
}

/* Both have the host's memory and nothing to wait for. */
#define HOST_MEMORY                                                                                          \
    .close = host_close, .memory = host_memory, .alloc = host_alloc, .free = host_free, .upload = host_copy, \
    .download = host_copy, .copy = host_copy, .zero = host_zero, .sync = host_sync
static const kn_device_vt host_vt[] = {
    [KN_BACKEND_REFERENCE] = {HOST_MEMORY, .kernels = kn_reference_kernels, .images = kn_ref_images},
    [KN_BACKEND_CPU] = {HOST_MEMORY, .kernels = kn_cpu_kernels, .fuse = kn_cpu_fuse},
};

static void read_model(char *to, size_t size, int threads)
{
    char line[256] = "", model[96] = "unknown CPU";
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "model name : %95[^\n]", model) == 1)
            break;
    if (f != NULL)
        fclose(f);
    snprintf(to, size, "%s, %d thread%s", model, threads, threads == 1 ? "" : "s");
}

es_status kn_host_open(kn_backend backend, int threads, kn_device **out, es_error *err)
{
    kn_device *d = es_xcalloc(1, sizeof *d);
    (void)err;
    if (threads == 0) {
#ifdef _OPENMP
        threads = omp_get_max_threads();
#else
        threads = 1;
#endif
    }
    d->vt = &host_vt[backend];
    d->backend = backend;
    d->threads = threads;
    snprintf(d->name, sizeof d->name, "%s", backend == KN_BACKEND_CPU ? "cpu" : "reference");
    read_model(d->model, sizeof d->model, threads);
    *out = d;
    return ES_OK;
}
