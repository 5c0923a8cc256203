/* config.h - espalierd.yaml: where the coordinator listens, where it keeps its databases, how patient it is. schemas/status.md lists every field.
 *
 *     dm_config cfg; dm_config_default(&cfg);
 *     dm_config_read("espalierd.yaml", &cfg, err);               // every mistake: file:line:column: field: what is wrong, what is allowed
 */
#ifndef DM_CONFIG_H
#define DM_CONFIG_H

#include "base/log.h"
#include "daemon/auth/limits.h"
#include "daemon/coord/coord.h"
#include "daemon/http/access.h"

enum { DM_CONFIG_TEXT = 256, DM_CONTROLS_MAX = 4 };

typedef struct dm_config {
    char dir[DM_CONFIG_TEXT];
    char control[DM_CONTROLS_MAX][DM_CONFIG_TEXT];
    int controls;
    char data[DM_CONFIG_TEXT], status[DM_CONFIG_TEXT], http[DM_CONFIG_TEXT]; /* status, http: "" for none */
    char keys[DM_CONFIG_TEXT + 8];                                           /* folder of key files; "": DIR/keys */
    dm_http_token http_token;
    bool insecure;                 /* tcp without CURVE */
    dm_limit_options limits;       /* of a tcp connection */
    int64_t weights_max_bytes;     /* of weights.db; 0: none */
    int64_t weights_free_bytes;    /* of its disk, kept free */
    int64_t weights_per_key_bytes; /* a key may add so much at once, and again in each weights_grace_s */
    es_log_level log;
    bool log_json;
    int weights_grace_s;                 /* a weights version that nothing needs stays for so long */
    char backup_dir[DM_CONFIG_TEXT + 8]; /* of automatic backups; "": DIR/backups */
    int64_t backup_every_s;              /* 0: none */
    int backup_keep;
    dm_options coord; /* times and limits; paths and endpoints are filled in by main */
} dm_config;

void dm_config_default(dm_config *c);
es_status dm_config_read(const char *path, dm_config *c, es_error *err) ES_MUST_CHECK;
es_status dm_config_parse(const char *name, const char *text, size_t n, dm_config *c, es_error *err) ES_MUST_CHECK;
/* Endpoints have a form that can be bound, times fit each other: after the file and the command line. Fills in what was left to it (keys). */
es_status dm_config_check(dm_config *c, es_error *err) ES_MUST_CHECK;

bool dm_config_has_tcp(const dm_config *c); /* any of control, data, status */

#endif
