/* Bytes from a stranger: decoded within bounds or refused; what was decoded encodes to bytes that decode to the same again. */
#include <stdlib.h>
#include <string.h>

#include "daemon/wire/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const ProtobufCMessageDescriptor *const kinds[] = {
        &espalier__wire__from_peer__descriptor, &espalier__wire__to_peer__descriptor,
        &espalier__wire__data_request__descriptor, &espalier__wire__data_reply__descriptor,
        &espalier__wire__manifest__descriptor};
    if (size == 0)
        return 0;
    ProtobufCMessage *m = NULL, *again = NULL;
    es_error e;
    const ProtobufCMessageDescriptor *kind = kinds[data[0] % (sizeof kinds / sizeof kinds[0])];
    es_status s = dm_decode(kind, data + 1, size - 1, &m, &e);
    if (s != ES_OK) {
        ES_ASSERT(m == NULL && e.code == s && e.text[0]);
        return 0;
    }
    dm_bytes a, b;
    /* The canonical form may be larger than what came; once canonical it stays. */
    if (dm_encode(m, DM_DATA_MAX, &a, &e) == ES_OK) {
        if (dm_decode(kind, a.data, a.n, &again, &e) == ES_OK) {
            ES_ASSERT(dm_encode(again, DM_DATA_MAX, &b, &e) == ES_OK);
            ES_ASSERT(a.n == b.n && memcmp(a.data, b.data, a.n) == 0);
            free(b.data);
            dm_message_free(&again);
        }
        free(a.data);
    }
    dm_message_free(&m);
    return 0;
}
