/* authorized.h - the file `authorized_keys`: which public key is whom, and in which role.
 *
 *     # ROLE NAME KEY: what `espalier keygen` wrote into a .pub file
 *     client ann          3f0c...64 hexadecimal digits
 *     worker gpu-node-1   77ab...
 *     admin  root@head    90de...
 *
 *     dm_auth_table t; dm_auth_table_read("keys/authorized_keys", &t, err);
 *     const dm_key_line *who = dm_auth_table_find(&t, public_key);              // NULL: a stranger
 *     dm_auth_table_free(&t);
 *
 * A name is a principal: searches belong to it and workers are bound to it, so two lines may share a name (a key being replaced), but not across
 * roles. A key stands in one line only. Every mistake is told as file:line: what is wrong, what is allowed.
 */
#ifndef DM_AUTH_KEYS_H
#define DM_AUTH_KEYS_H

#include "daemon/wire/keys.h"

enum { DM_AUTH_FILE_MAX = 4 << 20, DM_AUTH_KEYS_MAX = 20000 };

typedef struct dm_auth_table {
    dm_key_line *keys; /* ordered by public key */
    int n;
} dm_auth_table;

es_status dm_auth_table_parse(const char *file, const char *text, size_t n, dm_auth_table *out,
                              es_error *err) ES_MUST_CHECK;
/* ES_DENIED when others may change the file. */
es_status dm_auth_table_read(const char *file, dm_auth_table *out, es_error *err) ES_MUST_CHECK;
const dm_key_line *dm_auth_table_find(const dm_auth_table *t, const uint8_t pub[DM_KEY_BYTES]);
void dm_auth_table_free(dm_auth_table *t);

#endif
