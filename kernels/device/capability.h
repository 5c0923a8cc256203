/* capability.h - what a GPU can run of this build. Decided once, when a device is opened (kernels/cuda/device.cu keeps the answer in kn_cuda_device.can); every choice between
 * kernels asks there, and nothing above the CUDA back end knows of it.
 *
 * Two kinds of kernels:
 *   general   for compute capability 8.0 and up. A block has at most KN_SHARED_LEAST bytes of shared memory, what every such device grants.
 *   hopper    for 9.0 alone: clusters of blocks, the tensor copy engine, products by warpgroup, up to KN_SHARED_HOPPER bytes. Wherever one is chosen, a general one does
 *             the same.
 *
 *     kn_gpu_facts f = {"cuda:0 (NVIDIA A100)", 8, 0, 166912, .compiled = 800, .built_for = "80-virtual;90a"};
 *     kn_capability can;
 *     ES_RETURN(kn_capability_decide(&f, getenv("ESPALIER_TEST_CAPABILITY"), &can, err));      // can.hopper == false
 */
#ifndef KN_CAPABILITY_H
#define KN_CAPABILITY_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    KN_CAPABILITY_LEAST =
        80, /* 10 * major + minor: bf16 on tensor cores, copies to shared memory that nobody waits for */
    KN_SHARED_LEAST = 99 << 10, /* 8.6, 8.9 and 12.0; 8.0 has 163 KiB */
    KN_SHARED_HOPPER = 227 << 10,
};

typedef struct kn_gpu_facts {
    const char *name;    /* for messages: "cuda:0 (NVIDIA L4)" */
    int major, minor;    /* compute capability */
    size_t shared_bytes; /* that a block may ask for */
    int compiled; /* what the kernels that this device loads were compiled for: 800, 860, 900 ...; 0: the build has none for it */
    bool compiled_hopper;  /* for 9.0a, with what later devices lack */
    const char *built_for; /* the build's list, for messages */
} kn_gpu_facts;

typedef struct kn_capability {
    int number;          /* 80, 86, 90 ... */
    size_t shared_bytes; /* of a block at most, kept by kn_cuda_allow_shared */
    bool early;          /* a kernel may be set up while the one before is finishing (9.0 and up) */
    bool hopper;
} kn_capability;

/* ES_UNSUPPORTED, saying which device, what it has and what is needed. `pretend` (NULL: nothing) is for tests: "8.0" makes the device one of 8.0 with the least shared
 * memory of any; more than the device has, or no number, is ES_INVALID. */
es_status kn_capability_decide(const kn_gpu_facts *f, const char *pretend, kn_capability *out,
                               es_error *err) ES_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
