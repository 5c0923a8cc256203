/* str.h - a growing string. Invariant: s->p is always terminated and never NULL after es_str_init.
 *
 *     es_str s = ES_STR_INIT;
 *     es_str_addf(&s, "%d of %d", done, all);
 *     puts(s.p);
 *     es_str_free(&s);
 */
#ifndef ES_BASE_STR_H
#define ES_BASE_STR_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

extern char es_str_empty[1];
typedef struct es_str {
    char *p;
    size_t len, cap;
} es_str;
#define ES_STR_INIT        \
    {                      \
        es_str_empty, 0, 0 \
    }

void es_str_free(es_str *s);
void es_str_clear(es_str *s);
void es_str_add(es_str *s, const char *text);
void es_str_addn(es_str *s, const char *text, size_t n);
void es_str_addf(es_str *s, const char *fmt, ...) ES_PRINTF(2, 3);
char *es_str_take(es_str *s); /* caller owns; s is empty again */

/* The closest of `names` (NULL-terminated) to `word` by edit distance, or NULL when none is close: "did you mean". */
const char *es_str_closest(const char *word, const char *const *names);

/* Shortest text that reads back as the same double ("0.1", "1e-05", "3"); for JSON, CSV and canonical strings. */
const char *es_str_double(double v, char buf[32]);

/* Strict number reading: the whole text must be the number. Accept 500k / 2M / 1.5G suffixes when `suffixes`. */
bool es_str_to_i64(const char *text, bool suffixes, int64_t *out);
bool es_str_to_double(const char *text, bool suffixes, double *out);

#ifdef __cplusplus
}
#endif
#endif
