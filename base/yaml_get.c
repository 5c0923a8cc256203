/* Values out of a YAML tree, and the messages when they are not what is allowed. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "base/yaml.h"

static const char *kind_name(es_yaml_kind kind)
{
    switch (kind) {
    case ES_YAML_SCALAR: return "single value";
    case ES_YAML_LIST: return "list";
    case ES_YAML_MAP: return "map";
    }
    return "?";
}

const es_yaml_node *es_yaml_find(const es_yaml_node *map, const char *key)
{
    if (!map || map->kind != ES_YAML_MAP)
        return NULL;
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->keys[i], key) == 0)
            return map->items[i];
    return NULL;
}

static es_status fail_at(const es_yaml_node *n, int line, int column, es_error *err, const char *text)
{
    char where[sizeof err->where];
    /* A long file name loses its front, never the line. */
    const char *name = es_yaml_name(n->doc);
    size_t tail = strlen(n->path) + 24;
    size_t room = tail + 8 < sizeof where ? sizeof where - tail : 8;
    if (strlen(name) > room)
        name += strlen(name) - room;
    snprintf(where, sizeof where, n->path[0] ? "%s:%d:%d: %s" : "%s:%d:%d", name, line, column, n->path);
    return es_fail(err, ES_INVALID, where, "%s", text);
}

es_status es_yaml_fail(const es_yaml_node *n, es_error *err, const char *fmt, ...)
{
    char text[sizeof err->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return fail_at(n, n->line, n->column, err, text);
}

es_status es_yaml_expect(const es_yaml_node *n, es_yaml_kind kind, es_error *err)
{
    if (n->kind == kind)
        return ES_OK;
    return es_yaml_fail(n, err, "this is a %s, a %s is expected", kind_name(n->kind), kind_name(kind));
}

/* "a, b or c" */
static void list_names(const char *const *names, es_str *out)
{
    for (size_t i = 0; names[i]; i++)
        es_str_addf(out, "%s%s", i == 0 ? "" : names[i + 1] ? ", " : " or ", names[i]);
}

es_status es_yaml_check_keys(const es_yaml_node *map, const char *const *allowed, es_error *err)
{
    ES_RETURN(es_yaml_expect(map, ES_YAML_MAP, err));
    for (size_t i = 0; i < map->count; i++) {
        size_t k = 0;
        while (allowed[k] && strcmp(allowed[k], map->keys[i]) != 0)
            k++;
        if (allowed[k])
            continue;
        const char *near = es_str_closest(map->keys[i], allowed);
        es_str text = ES_STR_INIT;
        es_str_addf(&text, "unknown field \"%.80s\", ", map->keys[i]);
        if (near) {
            es_str_addf(&text, "did you mean \"%s\"?", near);
        } else {
            es_str_add(&text, "allowed are ");
            list_names(allowed, &text);
        }
        es_status s = fail_at(map->items[i], map->items[i]->key_line, map->items[i]->key_column, err, text.p);
        es_str_free(&text);
        return s;
    }
    return ES_OK;
}

/* "'x' is not ..." for scalars, the kind otherwise. */
static es_status not_a(const es_yaml_node *n, const char *what, es_error *err)
{
    if (n->kind != ES_YAML_SCALAR)
        return es_yaml_fail(n, err, "this is a %s, %s is expected", kind_name(n->kind), what);
    if (n->text[0] == '\0' && !n->quoted)
        return es_yaml_fail(n, err, "the value is missing, %s is expected", what);
    return es_yaml_fail(n, err, "\"%.80s\"%s is not %s", n->text, n->quoted ? " (in quotes, so a text)" : "", what);
}

es_status es_yaml_i64(const es_yaml_node *n, int64_t min, int64_t max, int64_t *out, es_error *err)
{
    int64_t v;
    if (n->kind != ES_YAML_SCALAR || n->quoted || !es_str_to_i64(n->text, true, &v))
        return not_a(n, "a whole number", err);
    if (v < min || v > max) {
        if (max == INT64_MAX)
            return es_yaml_fail(n, err, "%" PRId64 " is too small, at least %" PRId64 " is allowed", v, min);
        return es_yaml_fail(n, err, "%" PRId64 " is out of range, %" PRId64 " to %" PRId64 " is allowed", v, min, max);
    }
    *out = v;
    return ES_OK;
}

es_status es_yaml_f64(const es_yaml_node *n, double min, double max, double *out, es_error *err)
{
    double v;
    char a[32], b[32], c[32];
    if (n->kind != ES_YAML_SCALAR || n->quoted || !es_str_to_double(n->text, true, &v))
        return not_a(n, "a number", err);
    if (!(v >= min && v <= max))
        return es_yaml_fail(n, err, "%s is out of range, %s to %s is allowed", es_str_double(v, a),
                            es_str_double(min, b), es_str_double(max, c));
    *out = v;
    return ES_OK;
}

es_status es_yaml_bool(const es_yaml_node *n, bool *out, es_error *err)
{
    if (n->kind == ES_YAML_SCALAR && !n->quoted) {
        if (strcmp(n->text, "true") == 0 || strcmp(n->text, "yes") == 0 || strcmp(n->text, "on") == 0) {
            *out = true;
            return ES_OK;
        }
        if (strcmp(n->text, "false") == 0 || strcmp(n->text, "no") == 0 || strcmp(n->text, "off") == 0) {
            *out = false;
            return ES_OK;
        }
    }
    return not_a(n, "true or false", err);
}

es_status es_yaml_enum(const es_yaml_node *n, const char *const *names, int *out, es_error *err)
{
    if (n->kind == ES_YAML_SCALAR)
        for (int i = 0; names[i]; i++)
            if (strcmp(n->text, names[i]) == 0) {
                *out = i;
                return ES_OK;
            }
    es_str what = ES_STR_INIT;
    const char *near = n->kind == ES_YAML_SCALAR ? es_str_closest(n->text, names) : NULL;
    if (near)
        es_str_addf(&what, "known, did you mean \"%s\"? Allowed are ", near);
    else
        es_str_add(&what, names[0] && names[1] ? "one of " : "");
    list_names(names, &what);
    es_status s = not_a(n, what.p, err);
    es_str_free(&what);
    return s;
}

es_status es_yaml_str(const es_yaml_node *n, const char **out, es_error *err)
{
    if (n->kind != ES_YAML_SCALAR || (n->text[0] == '\0' && !n->quoted))
        return not_a(n, "a text", err);
    *out = n->text;
    return ES_OK;
}

es_status es_yaml_get_i64(const es_yaml_node *map, const char *key, int64_t min, int64_t max, int64_t *out,
                          es_error *err)
{
    const es_yaml_node *n = es_yaml_find(map, key);
    return n ? es_yaml_i64(n, min, max, out, err) : ES_OK;
}

es_status es_yaml_get_f64(const es_yaml_node *map, const char *key, double min, double max, double *out, es_error *err)
{
    const es_yaml_node *n = es_yaml_find(map, key);
    return n ? es_yaml_f64(n, min, max, out, err) : ES_OK;
}

es_status es_yaml_get_bool(const es_yaml_node *map, const char *key, bool *out, es_error *err)
{
    const es_yaml_node *n = es_yaml_find(map, key);
    return n ? es_yaml_bool(n, out, err) : ES_OK;
}

es_status es_yaml_get_enum(const es_yaml_node *map, const char *key, const char *const *names, int *out, es_error *err)
{
    const es_yaml_node *n = es_yaml_find(map, key);
    return n ? es_yaml_enum(n, names, out, err) : ES_OK;
}

es_status es_yaml_get_str(const es_yaml_node *map, const char *key, const char **out, es_error *err)
{
    const es_yaml_node *n = es_yaml_find(map, key);
    return n ? es_yaml_str(n, out, err) : ES_OK;
}
