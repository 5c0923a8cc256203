/* device.h - where tensors live and run: a small vtable behind an opaque handle.
 *
 *     kn_device *dev; ES_RETURN(kn_device_open("cpu", &dev, err));     // "cpu", "cpu:4" (threads), "reference", "cuda:0"
 *     void *p; kn_device_alloc(dev, bytes, &p, err);
 *     kn_device_close(&dev);
 *
 * "reference" runs every op by its naive implementation: the oracle of the tests. "cuda:N" exists only in builds with CUDA; elsewhere opening it is
 * ES_UNSUPPORTED and says how to get it. No CUDA type crosses a header.
 *
 * Invariant on the CPU: no result depends on the number of threads. Work is cut into pieces by shape alone, products are single-threaded per piece, and
 * partial sums are added in piece order.
 */
#ifndef KN_DEVICE_H
#define KN_DEVICE_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kn_backend { KN_BACKEND_REFERENCE, KN_BACKEND_CPU, KN_BACKEND_CUDA, KN_BACKENDS } kn_backend;

typedef struct kn_device kn_device;

es_status kn_device_open(const char *name, kn_device **out, es_error *err) ES_MUST_CHECK;
int kn_device_gpus(void); /* visible ones: cuda:0 and on; 0 in a build without CUDA */
/* Is cuda:INDEX one that kernels/cuda runs on (capability.h)? ES_UNSUPPORTED says what it lacks. Nothing is opened. */
es_status kn_device_gpu_fit(int index, es_error *err) ES_MUST_CHECK;
void kn_device_close(kn_device **dev);
/* From here on the calling thread uses this device: every thread but the one that opened it says so first. */
es_status kn_device_enter(kn_device *dev, es_error *err) ES_MUST_CHECK;
kn_backend kn_device_backend(const kn_device *dev);
const char *kn_device_name(const kn_device *dev); /* "cpu", "cuda:0" */
/* "Intel Xeon ... 2 threads", "NVIDIA H200": the machine kind that results are tagged with. */
const char *kn_device_model(const kn_device *dev);
es_status kn_device_memory(kn_device *dev, size_t *free_bytes, size_t *total_bytes, es_error *err) ES_MUST_CHECK;

/* Every failure of an allocation is ES_NO_MEMORY with the size asked for and the size free. */
es_status kn_device_alloc(kn_device *dev, size_t bytes, void **out, es_error *err) ES_MUST_CHECK;
void kn_device_free(kn_device *dev, void *p); /* NULL-safe */
es_status kn_device_upload(kn_device *dev, void *to, const void *from_host, size_t bytes, es_error *err) ES_MUST_CHECK;
es_status kn_device_download(kn_device *dev, void *to_host, const void *from, size_t bytes,
                             es_error *err) ES_MUST_CHECK;
es_status kn_device_copy(kn_device *dev, void *to, const void *from, size_t bytes, es_error *err) ES_MUST_CHECK;
es_status kn_device_zero(kn_device *dev, void *p, size_t bytes, es_error *err) ES_MUST_CHECK;
es_status kn_device_sync(kn_device *dev, es_error *err) ES_MUST_CHECK; /* waits for all work; a no-op on a CPU */

#ifdef __cplusplus
}
#endif
#endif
