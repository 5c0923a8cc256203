#include <ctype.h>
#include <string.h>

#include "base/str.h"
#include "supernet/searchfile/internal.h"

static void add_quoted(es_str *out, const char *t)
{
    es_str_add(out, "\"");
    for (; *t; t++) {
        unsigned char c = (unsigned char)*t;
        if (c == '"' || c == '\\')
            es_str_addf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            es_str_addf(out, "\\x%02x", c);
        else
            es_str_addn(out, t, 1);
    }
    es_str_add(out, "\"");
}

/* A plain scalar stays plain, so that a number stays a number; one that flow style could misread is quoted. */
static void add_scalar(es_str *out, const char *t, bool quoted)
{
    bool plain = !quoted && *t;
    for (const char *p = t; *p && plain; p++)
        plain = isalnum((unsigned char)*p) || (*p && strchr("_./+~", *p)) ||
                (*p == '-' && (p > t || isdigit((unsigned char)p[1])));
    if (plain || (!quoted && !*t))
        es_str_add(out, t);
    else
        add_quoted(out, t);
}

static void add_node(es_str *out, const es_yaml_node *n, const sn_replaced *r, int count)
{
    for (int i = 0; i < count; i++) {
        if (r[i].node == n && r[i].text) {
            add_quoted(out, r[i].text);
            return;
        }
        if (r[i].node == n)
            n = r[i].tree;
    }
    switch (n->kind) {
    case ES_YAML_SCALAR: add_scalar(out, n->text, n->quoted); return;
    case ES_YAML_LIST:
        es_str_add(out, "[");
        for (size_t i = 0; i < n->count; i++) {
            es_str_add(out, i ? ", " : "");
            add_node(out, n->items[i], r, count);
        }
        es_str_add(out, "]");
        return;
    case ES_YAML_MAP:
        es_str_add(out, "{");
        for (size_t i = 0; i < n->count; i++) {
            es_str_add(out, i ? ", " : "");
            add_scalar(out, n->keys[i], false);
            es_str_add(out, ": ");
            add_node(out, n->items[i], r, count);
        }
        es_str_add(out, "}");
        return;
    }
}

char *sn_searchfile_text(const es_yaml_node *root, const sn_replaced *r, int count)
{
    es_str out = ES_STR_INIT;
    for (size_t i = 0; i < root->count; i++) {
        add_scalar(&out, root->keys[i], false);
        es_str_add(&out, ": ");
        add_node(&out, root->items[i], r, count);
        es_str_add(&out, "\n");
    }
    return es_str_take(&out);
}
