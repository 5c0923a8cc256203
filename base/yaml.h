/* yaml.h - a YAML document as a tree that remembers where everything stood (libyaml reads; this keeps line and column).
 *
 *     es_yaml *doc; ES_RETURN(es_yaml_read(path, &doc, err));
 *     const es_yaml_node *root = es_yaml_root(doc);
 *     static const char *const allowed[] = {"name", "seed", NULL};
 *     ES_RETURN(es_yaml_check_keys(root, allowed, err));           // unknown key: "did you mean"
 *     ES_RETURN(es_yaml_get_i64(root, "seed", 0, INT64_MAX, &seed, err));  // absent: *seed keeps its default
 *
 * Every message reads "file:line:column: field: what is wrong, what is allowed". Bounded: 1 MiB, depth 32, 100,000 nodes; aliases,
 * duplicate keys and several documents are refused.
 */
#ifndef ES_BASE_YAML_H
#define ES_BASE_YAML_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct es_yaml es_yaml;
typedef enum es_yaml_kind { ES_YAML_SCALAR, ES_YAML_LIST, ES_YAML_MAP } es_yaml_kind;

typedef struct es_yaml_node es_yaml_node;
struct es_yaml_node {
    es_yaml_kind kind;
    int line, column;         /* 1-based, of the value */
    int key_line, key_column; /* of its field name in a map; otherwise of the value */
    bool quoted;              /* a quoted scalar is a string, never a number */
    const char *text;         /* scalar */
    const char *path;         /* "space.stages[1].kernel" */
    const es_yaml *doc;
    size_t count;               /* list items or map entries */
    const char **keys;          /* map */
    const es_yaml_node **items; /* list items or map values */
};

es_status es_yaml_read(const char *path, es_yaml **out, es_error *err) ES_MUST_CHECK;
es_status es_yaml_parse(const char *name, const char *text, size_t n, es_yaml **out, es_error *err) ES_MUST_CHECK;
void es_yaml_destroy(es_yaml **doc);
const es_yaml_node *es_yaml_root(const es_yaml *doc);
const char *es_yaml_name(const es_yaml *doc); /* the file name used in messages */

const es_yaml_node *es_yaml_find(const es_yaml_node *map, const char *key); /* NULL when absent or map is NULL */

/* ES_INVALID with where = "file:line:column: path". */
es_status es_yaml_fail(const es_yaml_node *n, es_error *err, const char *fmt, ...) ES_PRINTF(3, 4);
es_status es_yaml_expect(const es_yaml_node *n, es_yaml_kind kind, es_error *err) ES_MUST_CHECK;
es_status es_yaml_check_keys(const es_yaml_node *map, const char *const *allowed, es_error *err) ES_MUST_CHECK;

/* Of a node. */
es_status es_yaml_i64(const es_yaml_node *n, int64_t min, int64_t max, int64_t *out, es_error *err) ES_MUST_CHECK;
es_status es_yaml_f64(const es_yaml_node *n, double min, double max, double *out, es_error *err) ES_MUST_CHECK;
es_status es_yaml_bool(const es_yaml_node *n, bool *out, es_error *err) ES_MUST_CHECK;
es_status es_yaml_enum(const es_yaml_node *n, const char *const *names, int *out,
                       es_error *err) ES_MUST_CHECK; /* index into names */
es_status es_yaml_str(const es_yaml_node *n, const char **out,
                      es_error *err) ES_MUST_CHECK; /* borrowed from the document */

/* Of a map's key; when absent, *out is left as it is. */
es_status es_yaml_get_i64(const es_yaml_node *map, const char *key, int64_t min, int64_t max, int64_t *out,
                          es_error *err) ES_MUST_CHECK;
es_status es_yaml_get_f64(const es_yaml_node *map, const char *key, double min, double max, double *out,
                          es_error *err) ES_MUST_CHECK;
es_status es_yaml_get_bool(const es_yaml_node *map, const char *key, bool *out, es_error *err) ES_MUST_CHECK;
es_status es_yaml_get_enum(const es_yaml_node *map, const char *key, const char *const *names, int *out,
                           es_error *err) ES_MUST_CHECK;
es_status es_yaml_get_str(const es_yaml_node *map, const char *key, const char **out, es_error *err) ES_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
