/* keys.h - key files: who a program is towards the others. Curve25519 pairs, as ZeroMQ's CURVE uses them.
 *
 *     dm_key_pair k; dm_key_make(&k);
 *     dm_key_write(dir, DM_ROLE_CLIENT, "ann", &k, err);     // client.key (0600) and client.pub
 *     dm_keys keys; dm_keys_find(&(dm_keys_where){.role = DM_ROLE_CLIENT}, &keys, err);
 *     dm_peer_open(&(dm_peer_options){.endpoint = "tcp://head:5700", .keys = &keys}, &p, err);
 *
 * Two kinds of file, both text, `#` begins a comment line:
 *
 *     secret file  ROLE.key   one line `secret HEX`; refused when others than its owner may read it
 *     public file  ROLE.pub   one line `ROLE NAME HEX`: what whoever runs the coordinator appends to its authorized_keys (daemon/auth/authorized.h)
 *
 * HEX are the 64 hexadecimal digits of 32 bytes. A peer needs its own pair and the server's public key (`server.pub`, made by espalierd).
 */
#ifndef DM_WIRE_KEYS_H
#define DM_WIRE_KEYS_H

#include "base/status.h"

enum { DM_KEY_BYTES = 32, DM_KEY_HEX = 65, DM_KEY_NAME_MAX = 64 };

/* What a key may do; daemon/auth/roles.c has the table. NONE may do nothing. */
typedef enum dm_role { DM_ROLE_NONE, DM_ROLE_CLIENT, DM_ROLE_WORKER, DM_ROLE_ADMIN, DM_ROLE_SERVER } dm_role;
const char *dm_role_name(dm_role r);                /* "client" */
bool dm_role_parse(const char *text, dm_role *out); /* client, worker, admin */

typedef struct dm_key_pair {
    uint8_t pub[DM_KEY_BYTES], secret[DM_KEY_BYTES];
} dm_key_pair;

/* What a peer connects with. */
typedef struct dm_keys {
    dm_key_pair own;
    uint8_t server[DM_KEY_BYTES];
} dm_keys;

/* One line of a public file or of authorized_keys. */
typedef struct dm_key_line {
    dm_role role;
    char name[DM_KEY_NAME_MAX];
    uint8_t pub[DM_KEY_BYTES];
} dm_key_line;

void dm_key_make(dm_key_pair *k);
void dm_key_hex(const uint8_t key[DM_KEY_BYTES], char hex[DM_KEY_HEX]);
bool dm_key_parse(const char *hex, size_t n, uint8_t key[DM_KEY_BYTES]);
/* 1 to 63 of letters, digits and . _ - @ */
bool dm_key_name_valid(const char *name);
/* ES_INVALID with what is wrong; ES_NOT_FOUND: an empty or comment line. `text` need not be terminated. */
es_status dm_key_line_parse(const char *text, size_t n, dm_key_line *out, es_error *err) ES_MUST_CHECK;

/* Writes DIR/ROLE.key and DIR/ROLE.pub, making DIR (0700) when it is not there. ES_EXISTS: never overwrites a key. */
es_status dm_key_write(const char *dir, dm_role role, const char *name, const dm_key_pair *k,
                       es_error *err) ES_MUST_CHECK;
/* After a crash between the two files: a .key without its .pub gets it, made from the secret; *made and *k then. */
es_status dm_key_complete(const char *dir, dm_role role, const char *name, dm_key_pair *k, bool *made,
                          es_error *err) ES_MUST_CHECK;
/* ES_DENIED when others may read the file. */
es_status dm_key_read_secret(const char *path, dm_key_pair *out, es_error *err) ES_MUST_CHECK;
es_status dm_key_read_public(const char *path, dm_key_line *out, es_error *err) ES_MUST_CHECK;
/* A new file with just these permissions, whole or not there (PATH.new until then), synced; ES_EXISTS when there is one. */
es_status dm_secret_file_write(const char *path, const char *text, unsigned mode, es_error *err) ES_MUST_CHECK;
/* ES_DENIED when somebody else than this user (or root) owns the file, or could read (`secret`) or change it. */
es_status dm_secret_file_check(const char *path, bool secret, es_error *err) ES_MUST_CHECK;
/* ~/.config/espalier, or $XDG_CONFIG_HOME/espalier. */
void dm_keys_dir(char *out, size_t size);

/* Where a client (or worker) finds what it needs; texts may be NULL. In this order:
 *   own key       `key`, $ESPALIER_KEY, ~/.config/espalier/ROLE.key, there admin.key
 *   server's key  `server` (a file, or the 64 digits), $ESPALIER_SERVER_KEY, server.pub beside the own key, ~/.config/espalier/server.pub */
typedef struct dm_keys_where {
    dm_role role;
    const char *key, *server;
} dm_keys_where;
/* ES_NOT_FOUND: what is missing and how it is made. */
es_status dm_keys_find(const dm_keys_where *where, dm_keys *out, es_error *err) ES_MUST_CHECK;

/* What a program was told about its connections: its options, or the environment's ESPALIER_INSECURE=1. */
typedef struct dm_login {
    bool insecure; /* plain TCP */
    bool keyed;    /* `keys` are there */
    dm_keys keys;
} dm_login;
/* Keys must be there when the endpoint needs them: tcp, and not insecure. Over ipc they are taken along when there are some. */
es_status dm_login_find(const char *endpoint, const dm_keys_where *where, bool insecure, dm_login *out,
                        es_error *err) ES_MUST_CHECK;

#endif
