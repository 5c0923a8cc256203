/* safetensors: what is read is written again as a file that reads as the same version. */
#include <stdlib.h>

#include "supernet/version/version.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sn_version *v = NULL, *again = NULL;
    es_error e;
    es_status s = sn_safetensors_parse("fuzz.safetensors", data, size, &v, &e);
    if (s != ES_OK) {
        ES_ASSERT(v == NULL && e.code == s && e.text[0]);
        return 0;
    }
    char *bytes = NULL;
    size_t n = 0;
    ES_ASSERT(sn_safetensors_format(v, &bytes, &n, &e) == ES_OK);
    ES_ASSERT(sn_safetensors_parse("again.safetensors", bytes, n, &again, &e) == ES_OK);
    ES_ASSERT(sn_version_equal(v, again));
    free(bytes);
    sn_version_destroy(&v);
    sn_version_destroy(&again);
    return 0;
}
