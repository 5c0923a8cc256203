#include "daemon/auth/authorized.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/file.h"

static int by_pub(const void *a, const void *b)
{
    return memcmp(((const dm_key_line *)a)->pub, ((const dm_key_line *)b)->pub, DM_KEY_BYTES);
}

static int by_name(const void *a, const void *b)
{
    const dm_key_line *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Two lines contradict each other: one key twice, or one name in two roles. */
static es_status contradictions(const char *file, dm_auth_table *t, es_error *err)
{
    qsort(t->keys, (size_t)t->n, sizeof *t->keys, by_pub);
    for (int i = 1; i < t->n; i++)
        if (by_pub(&t->keys[i - 1], &t->keys[i]) == 0)
            return es_fail(err, ES_INVALID, file, "%s and %s have the same key: a key stands in one line only",
                           t->keys[i - 1].name, t->keys[i].name);
    const dm_key_line **names = es_xcalloc((size_t)t->n + 1, sizeof(dm_key_line *));
    for (int i = 0; i < t->n; i++)
        names[i] = &t->keys[i];
    qsort(names, (size_t)t->n, sizeof(dm_key_line *), by_name);
    es_status s = ES_OK;
    for (int i = 1; i < t->n && s == ES_OK; i++)
        if (strcmp(names[i - 1]->name, names[i]->name) == 0 && names[i - 1]->role != names[i]->role)
            s = es_fail(err, ES_INVALID, file, "%s is both %s and %s: a name has one role", names[i]->name,
                        dm_role_name(names[i - 1]->role), dm_role_name(names[i]->role));
    free(names);
    return s;
}

es_status dm_auth_table_parse(const char *file, const char *text, size_t n, dm_auth_table *out, es_error *err)
{
    const char *at = text, *end = text + n;
    es_status s = ES_OK;
    int cap = 0;
    *out = (dm_auth_table){0};
    for (int line = 1; at < end && s == ES_OK; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        dm_key_line key;
        s = dm_key_line_parse(at, (size_t)(stop - at), &key, err);
        if (s == ES_OK && key.role == DM_ROLE_SERVER)
            s = es_fail(err, ES_INVALID, NULL, "the role is \"server\", allowed are client, worker and admin");
        if (s == ES_OK && out->n == DM_AUTH_KEYS_MAX)
            s = es_fail(err, ES_INVALID, NULL, "more than %d keys", DM_AUTH_KEYS_MAX);
        if (s == ES_OK) {
            if (out->n == cap) {
                cap = cap ? 2 * cap : 16;
                out->keys = es_xrealloc(out->keys, (size_t)cap * sizeof *out->keys);
            }
            out->keys[out->n++] = key;
        } else if (s == ES_NOT_FOUND) {
            s = ES_OK; /* empty or a comment */
        } else {
            char place[128];
            snprintf(place, sizeof place, "%.100s:%d", file, line);
            s = es_at(err, s, place);
        }
        at = stop + 1;
    }
    if (s == ES_OK && out->n > 0)
        s = contradictions(file, out, err);
    if (s != ES_OK)
        dm_auth_table_free(out);
    return s;
}

es_status dm_auth_table_read(const char *file, dm_auth_table *out, es_error *err)
{
    char *text = NULL;
    size_t n = 0;
    *out = (dm_auth_table){0};
    ES_RETURN(dm_secret_file_check(file, false, err));
    ES_RETURN(es_file_read(file, DM_AUTH_FILE_MAX, &text, &n, err));
    es_status s = dm_auth_table_parse(file, text, n, out, err);
    free(text);
    return s;
}

const dm_key_line *dm_auth_table_find(const dm_auth_table *t, const uint8_t pub[DM_KEY_BYTES])
{
    dm_key_line key;
    if (t->n == 0)
        return NULL;
    memcpy(key.pub, pub, DM_KEY_BYTES);
    return bsearch(&key, t->keys, (size_t)t->n, sizeof *t->keys, by_pub);
}

void dm_auth_table_free(dm_auth_table *t)
{
    free(t->keys);
    *t = (dm_auth_table){0};
}
