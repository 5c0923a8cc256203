/* json.h - writing JSON deterministically; reading is Jansson's (json_loads), used directly.
 *
 *     es_json j; es_json_begin(&j, 2);              // indent 2; 0 = one line
 *     es_json_object(&j, NULL);
 *     es_json_i64(&j, "params", 1234);
 *     es_json_array(&j, "front"); ... es_json_end(&j);
 *     es_json_end(&j);
 *     char *text = es_json_finish(&j);              // caller owns
 *
 * Keys in the order written, doubles shortest-round-trip, NaN and infinities as null: the same values are the same bytes. Inside an
 * array pass key = NULL. Wrong nesting is an assertion.
 */
#ifndef ES_BASE_JSON_H
#define ES_BASE_JSON_H

#include "base/str.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ES_JSON_DEPTH = 24 };
typedef struct es_json {
    es_str out;
    int indent, depth;
    char kind[ES_JSON_DEPTH]; /* '{' or '[' */
    bool first[ES_JSON_DEPTH];
} es_json;

void es_json_begin(es_json *j, int indent);
void es_json_object(es_json *j, const char *key);
void es_json_array(es_json *j, const char *key);
void es_json_end(es_json *j);                                     /* closes the innermost object or array */
void es_json_str(es_json *j, const char *key, const char *value); /* NULL value: null */
void es_json_i64(es_json *j, const char *key, int64_t value);
void es_json_f64(es_json *j, const char *key, double value);
void es_json_bool(es_json *j, const char *key, bool value);
void es_json_raw(es_json *j, const char *key, const char *json); /* trusted, already JSON */
char *es_json_finish(es_json *j);
void es_json_free(es_json *j);

#ifdef __cplusplus
}
#endif
#endif
