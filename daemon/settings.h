/* settings.h - every field of espalierd.yaml in one table: where it is kept, what it may be, whether a reload changes it.
 *
 *     es_status s = dm_settings_read(root, &config, err);               // config.c
 *     for (const dm_setting *s = dm_settings; s->name; s++) ...         // reload.c
 *
 * To add a field: a member of dm_config (config.h) with its default (dm_config_default), a line in this table, a line in schemas/status.md; tests/daemon/reload
 * then asks what a reload does with it.
 *
 * Names: "backup.keep" is `keep` of the section `backup`; "control[1]" is the second entry of the list `control`, and is not a field of its own.
 */
#ifndef DM_SETTINGS_H
#define DM_SETTINGS_H

#include "base/yaml.h"
#include "daemon/config.h"

typedef enum dm_setting_kind {
    DM_SETTING_TEXT, /* char[DM_CONFIG_TEXT] or more */
    DM_SETTING_PATH, /* the same, absolute */
    DM_SETTING_LIST, /* the same, and the entries behind it */
    DM_SETTING_INT,
    DM_SETTING_I64,
    DM_SETTING_FLAG, /* bool: true and false */
    DM_SETTING_ENUM  /* int or bool: the index of a name */
} dm_setting_kind;

typedef struct dm_setting {
    const char *name;
    size_t at, size; /* in dm_config */
    bool live;       /* a reload changes it; else it waits for a restart */
    dm_setting_kind kind;
    int64_t min, max;         /* INT, I64 */
    const char *const *names; /* ENUM */
} dm_setting;
extern const dm_setting dm_settings[]; /* name NULL: the end */

/* Changes what the document names. Every mistake: file:line:column: field: what is wrong, what is allowed. */
es_status dm_settings_read(const es_yaml_node *root, dm_config *c, es_error *err) ES_MUST_CHECK;
bool dm_setting_same(const dm_setting *s, const dm_config *a, const dm_config *b);
void dm_setting_take(const dm_setting *s, dm_config *to, const dm_config *from);
void dm_setting_show(const dm_setting *s, const dm_config *c, char out[80]); /* as the file would say it */

#endif
