/* codec.h - wire messages to bytes and back, with limits; the names of schemas/wire.proto are used as protoc-c makes them.
 *
 *     Espalier__Wire__Query q = ESPALIER__WIRE__QUERY__INIT; q.what = dm_text("status");
 *     dm_from_peer m = DM_FROM_PEER(QUERY, query, &q);
 *     dm_bytes b; dm_encode(&m.base, DM_CONTROL_MAX, &b, err); ... free(b.data);
 *     ProtobufCMessage *in; dm_decode(&espalier__wire__to_peer__descriptor, data, n, &in, err); ... dm_message_free(&in);
 *
 * Outside bytes are bounded twice: by the size of a frame, and by what one decoded message may take from memory (DM_DECODE_FACTOR times
 * its bytes plus a constant), so that a frame of a million empty submessages is refused and not unpacked.
 */
#ifndef DM_WIRE_CODEC_H
#define DM_WIRE_CODEC_H

#include "base/status.h"
#include "schemas/wire.pb-c.h"

enum {
    DM_WIRE_VERSION = ESPALIER__WIRE__PROTOCOL__PROTOCOL_CURRENT,
    DM_CONTROL_MAX = 1 << 20,
    DM_DATA_MAX = 4 << 20,
    DM_DECODE_FACTOR = 12,
};

typedef Espalier__Wire__FromPeer dm_from_peer;
typedef Espalier__Wire__ToPeer dm_to_peer;
typedef Espalier__Wire__DataRequest dm_data_request;
typedef Espalier__Wire__DataReply dm_data_reply;
typedef Espalier__Wire__Lease dm_lease_id;
typedef Espalier__Wire__JobSpec dm_job_spec;
typedef Espalier__Wire__JobResult dm_job_result;

/* The envelope of one message (borrowed): DM_TO_PEER(DONE, done, &d). An lvalue, as a variable of the block would be. */
#define DM_FROM_PEER(WHAT, field, message) DM_ENVELOPE(FROM_PEER, from_peer, dm_from_peer, WHAT, field, message)
#define DM_TO_PEER(WHAT, field, message) DM_ENVELOPE(TO_PEER, to_peer, dm_to_peer, WHAT, field, message)
#define DM_DATA_REQUEST(WHAT, field, message) \
    DM_ENVELOPE(DATA_REQUEST, data_request, dm_data_request, WHAT, field, message)
#define DM_DATA_REPLY(WHAT, field, message) DM_ENVELOPE(DATA_REPLY, data_reply, dm_data_reply, WHAT, field, message)
#define DM_ENVELOPE(KIND, kind, type, WHAT, member, message)                        \
    ((type){.base = PROTOBUF_C_MESSAGE_INIT(&espalier__wire__##kind##__descriptor), \
            .what_case = ESPALIER__WIRE__##KIND##__WHAT_##WHAT,                     \
            .member = (message)})

/* A text for a message that is sent: protoc-c's fields are char *, though sending changes nothing. */
static inline char *dm_text(const char *text) { return (char *)(uintptr_t)text; }

typedef struct dm_bytes {
    uint8_t *data;
    size_t n;
} dm_bytes;

/* A job kind's name everywhere: the wire's own, "train.supernet" for JOB_TRAIN_SUPERNET; "unknown" for a number the wire does not have. */
const char *dm_job_kind_name(int kind);

/* ES_INVALID when the message is larger than `max`. */
es_status dm_encode(const ProtobufCMessage *m, size_t max, dm_bytes *out, es_error *err) ES_MUST_CHECK;
/* ES_CORRUPT for bytes that are no such message or one too costly to hold. */
es_status dm_decode(const ProtobufCMessageDescriptor *d, const void *data, size_t n, ProtobufCMessage **out,
                    es_error *err) ES_MUST_CHECK;
void dm_message_free(ProtobufCMessage **m); /* of dm_decode; NULL-safe */

/* The Error that answers a FromPeer, whose request_id is read from it. */
es_status dm_refusal(const void *request, size_t n, const es_error *why, dm_bytes *out, es_error *err) ES_MUST_CHECK;

/* An Error message as a status: unknown codes become ES_IO. Returns the status. */
es_status dm_error_status(const Espalier__Wire__Error *e, es_error *err);

#endif
