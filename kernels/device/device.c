/* Opening devices by name, and the thin calls through a device's vtable. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/device/device_internal.h"

#ifndef ES_HAVE_CUDA
es_status kn_cuda_open(int index, kn_device **out, es_error *err)
{
    (void)index;
    *out = NULL;
    return es_fail(err, ES_UNSUPPORTED, "device cuda",
                   "this build has no CUDA: install nvcc, cuBLASLt and NCCL and configure with -DESPALIER_CUDA=ON");
}

int kn_device_gpus(void) { return 0; }

es_status kn_device_gpu_fit(int index, es_error *err)
{
    kn_device *none;
    return kn_cuda_open(index, &none, err);
}
#endif

/* The number after "prefix:", or `missing` when there is none. */
static es_status read_number(const char *name, const char *after, int least, int missing, int *out, es_error *err)
{
    *out = missing;
    if (*after == '\0')
        return ES_OK;
    char *end = NULL;
    errno = 0;
    long v = after[0] == ':' && after[1] >= '0' && after[1] <= '9' ? strtol(after + 1, &end, 10) : -1;
    if (v < least || v > 4096 || errno != 0 || *end != '\0')
        return es_fail(err, ES_INVALID, "device",
                       "\"%s\" is not a device; allowed are cpu, cpu:THREADS, reference, cuda:INDEX", name);
    *out = (int)v;
    return ES_OK;
}

es_status kn_device_open(const char *name, kn_device **out, es_error *err)
{
    int n = 0;
    *out = NULL;
    if (strcmp(name, "reference") == 0)
        return kn_host_open(KN_BACKEND_REFERENCE, 1, out, err);
    if (strncmp(name, "cpu", 3) == 0) {
        ES_RETURN(read_number(name, name + 3, 1, 0, &n, err));
        return kn_host_open(KN_BACKEND_CPU, n, out, err);
    }
    if (strncmp(name, "cuda", 4) == 0) {
        ES_RETURN(read_number(name, name + 4, 0, 0, &n, err));
        return kn_cuda_open(n, out, err);
    }
    return es_fail(err, ES_INVALID, "device",
                   "\"%s\" is not a device; allowed are cpu, cpu:THREADS, reference, cuda:INDEX", name);
}

void kn_device_close(kn_device **dev)
{
    if (*dev != NULL)
        (*dev)->vt->close(*dev);
    *dev = NULL;
}

es_status kn_device_enter(kn_device *dev, es_error *err)
{
    return dev->vt->enter != NULL ? dev->vt->enter(dev, err) : ES_OK;
}

kn_backend kn_device_backend(const kn_device *dev) { return dev->backend; }
const char *kn_device_name(const kn_device *dev) { return dev->name; }
const char *kn_device_model(const kn_device *dev) { return dev->model; }

es_status kn_device_memory(kn_device *dev, size_t *free_bytes, size_t *total_bytes, es_error *err)
{
    return dev->vt->memory(dev, free_bytes, total_bytes, err);
}

es_status kn_device_alloc(kn_device *dev, size_t bytes, void **out, es_error *err)
{
    *out = NULL;
    return bytes == 0 ? ES_OK : dev->vt->alloc(dev, bytes, out, err);
}

void kn_device_free(kn_device *dev, void *p)
{
    if (p != NULL)
        dev->vt->free(dev, p);
}

es_status kn_device_upload(kn_device *dev, void *to, const void *from_host, size_t bytes, es_error *err)
{
    dev->count.uploads += bytes > 0;
    return bytes == 0 ? ES_OK : dev->vt->upload(dev, to, from_host, bytes, err);
}

es_status kn_device_download(kn_device *dev, void *to_host, const void *from, size_t bytes, es_error *err)
{
    return bytes == 0 ? ES_OK : dev->vt->download(dev, to_host, from, bytes, err);
}

es_status kn_device_copy(kn_device *dev, void *to, const void *from, size_t bytes, es_error *err)
{
    return bytes == 0 ? ES_OK : dev->vt->copy(dev, to, from, bytes, err);
}

es_status kn_device_zero(kn_device *dev, void *p, size_t bytes, es_error *err)
{
    return bytes == 0 ? ES_OK : dev->vt->zero(dev, p, bytes, err);
}

es_status kn_device_sync(kn_device *dev, es_error *err) { return dev->vt->sync(dev, err); }
