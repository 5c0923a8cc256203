/* See capability.h. */
#include "kernels/device/capability.h"

#include <stdio.h>

/* "8.0" -> 80 */
static es_status read_pretended(const kn_gpu_facts *f, const char *text, int *number, es_error *err)
{
    int major = 0, minor = 0, end = 0;
    if (sscanf(text, "%2d.%1d%n", &major, &minor, &end) != 2 || text[end] != '\0' || major < 0 || minor < 0)
        return es_fail(err, ES_INVALID, "ESPALIER_TEST_CAPABILITY",
                       "\"%s\" is no compute capability; allowed are such as 8.0, up to the device's own, %d.%d", text,
                       f->major, f->minor);
    if (10 * major + minor > *number)
        return es_fail(err, ES_INVALID, "ESPALIER_TEST_CAPABILITY", "%s is above what %s has, compute capability %d.%d",
                       text, f->name, f->major, f->minor);
    *number = 10 * major + minor;
    return ES_OK;
}

es_status kn_capability_decide(const kn_gpu_facts *f, const char *pretend, kn_capability *out, es_error *err)
{
    int number = 10 * f->major + f->minor;
    size_t shared = f->shared_bytes;
    *out = (kn_capability){0};
    if (pretend != NULL && pretend[0] != '\0') {
        ES_RETURN(read_pretended(f, pretend, &number, err));
        shared = shared < KN_SHARED_LEAST ? shared : KN_SHARED_LEAST;
    }
    if (number < KN_CAPABILITY_LEAST)
        return es_fail(err, ES_UNSUPPORTED, "cuda",
                       "%s has compute capability %d.%d; 8.0 or above is needed (A100, RTX 30 and what came after "
                       "them). Run on the processor instead: --device cpu",
                       f->name, number / 10, number % 10);
    if (f->compiled == 0)
        return es_fail(err, ES_UNSUPPORTED, "cuda",
                       "%s has compute capability %d.%d, and this build has no kernels for it (it was configured for "
                       "\"%s\"): configure with "
                       "-DESPALIER_CUDA_ARCHITECTURES=%d",
                       f->name, number / 10, number % 10, f->built_for, number);
    if (shared < KN_SHARED_LEAST)
        return es_fail(err, ES_UNSUPPORTED, "cuda", "%s grants a block %zu bytes of shared memory; %d are needed",
                       f->name, shared, KN_SHARED_LEAST);
    out->number = number;
    out->shared_bytes = shared;
    out->early = number >= 90 && f->compiled >= 900;
    out->hopper = number == 90 && f->compiled_hopper && shared >= KN_SHARED_HOPPER;
    return ES_OK;
}
