#include "base/json.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

void es_json_begin(es_json *j, int indent)
{
    memset(j, 0, sizeof *j);
    j->out = (es_str)ES_STR_INIT;
    j->indent = indent;
    j->first[0] = true;
}

static void new_line(es_json *j)
{
    if (j->indent == 0)
        return;
    es_str_add(&j->out, "\n");
    for (int i = 0; i < j->indent * j->depth; i++)
        es_str_add(&j->out, " ");
}

/* Length of the valid UTF-8 sequence at p (RFC 3629, table 3-7 of Unicode), 0 when there is none. */
static size_t utf8_length(const unsigned char *p)
{
    if (p[0] < 0x80)
        return 1;
    unsigned low = 0x80, high = 0xbf;
    size_t n;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        n = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        n = 3;
        low = p[0] == 0xe0 ? 0xa0 : 0x80;
        high = p[0] == 0xed ? 0x9f : 0xbf;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        n = 4;
        low = p[0] == 0xf0 ? 0x90 : 0x80;
        high = p[0] == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

/* A file name may hold any bytes; a byte that is not UTF-8 becomes U+FFFD so that the document stays valid. */
static void quote(es_str *out, const char *text)
{
    es_str_add(out, "\"");
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        size_t n = utf8_length(p);
        if (n == 0) {
            es_str_add(out, "\xef\xbf\xbd");
            n = 1;
        } else if (*p == '"' || *p == '\\') {
            es_str_addf(out, "\\%c", *p);
        } else if (*p == '\n') {
            es_str_add(out, "\\n");
        } else if (*p == '\t') {
            es_str_add(out, "\\t");
        } else if (*p < 0x20 || *p == 0x7f) {
            es_str_addf(out, "\\u%04x", *p);
        } else {
            es_str_addn(out, (const char *)p, n);
        }
        p += n;
    }
    es_str_add(out, "\"");
}

/* Comma, new line and key: everything in front of a value. */
static void before_value(es_json *j, const char *key)
{
    if (j->depth == 0) {
        ES_ASSERT(j->first[0] && key == NULL); /* one value at the top */
        j->first[0] = false;
        return;
    }
    ES_ASSERT((j->kind[j->depth] == '{') == (key != NULL));
    if (!j->first[j->depth])
        es_str_add(&j->out, j->indent ? "," : ", ");
    j->first[j->depth] = false;
    new_line(j);
    if (key) {
        quote(&j->out, key);
        es_str_add(&j->out, ": ");
    }
}

static void open_level(es_json *j, const char *key, char kind)
{
    before_value(j, key);
    ES_ASSERT(j->depth + 1 < ES_JSON_DEPTH);
    j->depth++;
    j->kind[j->depth] = kind;
    j->first[j->depth] = true;
    es_str_addn(&j->out, &kind, 1);
}

void es_json_object(es_json *j, const char *key) { open_level(j, key, '{'); }

void es_json_array(es_json *j, const char *key) { open_level(j, key, '['); }

void es_json_end(es_json *j)
{
    ES_ASSERT(j->depth > 0);
    char kind = j->kind[j->depth];
    bool empty = j->first[j->depth];
    j->depth--;
    if (!empty)
        new_line(j);
    es_str_add(&j->out, kind == '{' ? "}" : "]");
}

void es_json_str(es_json *j, const char *key, const char *value)
{
    before_value(j, key);
    if (value)
        quote(&j->out, value);
    else
        es_str_add(&j->out, "null");
}

void es_json_i64(es_json *j, const char *key, int64_t value)
{
    before_value(j, key);
    es_str_addf(&j->out, "%" PRId64, value);
}

void es_json_f64(es_json *j, const char *key, double value)
{
    char buf[32];
    before_value(j, key);
    es_str_add(&j->out, isfinite(value) ? es_str_double(value, buf) : "null");
}

void es_json_bool(es_json *j, const char *key, bool value)
{
    before_value(j, key);
    es_str_add(&j->out, value ? "true" : "false");
}

void es_json_raw(es_json *j, const char *key, const char *json)
{
    before_value(j, key);
    es_str_add(&j->out, json);
}

char *es_json_finish(es_json *j)
{
    ES_ASSERT(j->depth == 0 && !j->first[0]);
    if (j->indent)
        es_str_add(&j->out, "\n");
    return es_str_take(&j->out);
}

void es_json_free(es_json *j) { es_str_free(&j->out); }
