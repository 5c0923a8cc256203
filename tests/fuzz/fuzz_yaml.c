/* Any bytes are either a tree whose every node knows where it stands, or a refusal that says where. */
#include <stdlib.h>
#include <string.h>

#include "base/yaml.h"

static const char *const NAMES[] = {"name", "seed", "space", "task", "search", NULL};

static void look_at(const es_yaml_node *n, int depth)
{
    es_error e;
    int64_t i;
    double f;
    bool b;
    int k;
    const char *s;
    ES_ASSERT(depth <= 32 && n->line >= 1 && n->column >= 1 && n->path && n->doc);
    if (es_yaml_i64(n, -1000, 1000, &i, &e) == ES_OK)
        ES_ASSERT(i >= -1000 && i <= 1000);
    if (es_yaml_f64(n, 0, 1, &f, &e) == ES_OK)
        ES_ASSERT(f >= 0 && f <= 1);
    if (es_yaml_bool(n, &b, &e) != ES_OK)
        ES_ASSERT(e.where[0] && e.text[0]);
    if (es_yaml_enum(n, NAMES, &k, &e) == ES_OK)
        ES_ASSERT(strcmp(NAMES[k], n->text) == 0);
    if (es_yaml_str(n, &s, &e) == ES_OK)
        ES_ASSERT(n->kind == ES_YAML_SCALAR && s == n->text);
    es_status keys = es_yaml_check_keys(n, NAMES, &e);
    ES_ASSERT(keys == ES_OK || e.code == ES_INVALID);
    for (size_t c = 0; c < n->count; c++) {
        if (n->kind == ES_YAML_MAP)
            ES_ASSERT(es_yaml_find(n, n->keys[c]) == n->items[c]);
        look_at(n->items[c], depth + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_yaml *doc = NULL;
    es_error e;
    es_status s = es_yaml_parse("fuzz.yaml", (const char *)data, size, &doc, &e);
    if (s == ES_OK)
        look_at(es_yaml_root(doc), 0);
    else
        ES_ASSERT(doc == NULL && e.code == s && e.where[0] && e.text[0]);
    es_yaml_destroy(&doc);
    return 0;
}
