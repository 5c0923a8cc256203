/* A space from YAML: refused with a place, or its smallest, largest and some random architectures have a cost, a text and read back. */
#include <stdlib.h>
#include <string.h>

#include "supernet/space/space.h"

static void look_at(const sn_space *sp, const sr_space *choices, const sr_arch *a)
{
    es_error e;
    sn_cost c;
    if (sn_space_cost(sp, a, &c, &e) == ES_OK)
        ES_ASSERT(c.params >= 0 && c.macs >= 0 && c.activation_bytes >= 0);
    else
        ES_ASSERT(e.text[0]);
    char *text = sn_arch_format(sp, a);
    sr_arch *back = sr_arch_new(choices);
    es_status s = sn_arch_parse(sp, text, back, &e);
    ES_ASSERT(s == ES_OK && memcmp(back->gene, a->gene, (size_t)a->n) == 0);
    free(back);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_yaml *doc = NULL;
    sn_space *sp = NULL;
    es_error e;
    if (es_yaml_parse("fuzz.yaml", (const char *)data, size, &doc, &e) != ES_OK)
        return 0;
    const es_yaml_node *node = es_yaml_find(es_yaml_root(doc), "space");
    es_status s = sn_space_read(node ? node : es_yaml_root(doc), &sp, &e);
    es_yaml_destroy(&doc);
    if (s != ES_OK) {
        ES_ASSERT(sp == NULL && e.where[0] && e.text[0]);
        return 0;
    }
    const sr_space *choices = sn_space_choices(sp);
    sr_arch *a = sr_arch_new(choices);
    sr_arch_smallest(choices, a);
    look_at(sp, choices, a);
    sr_arch_largest(choices, a);
    look_at(sp, choices, a);
    es_rng r = es_rng_make(1, ES_USE_TEST, 0);
    for (int i = 0; i < 3; i++) {
        sr_arch_random(choices, &r, a);
        look_at(sp, choices, a);
    }
    free(a);
    sn_space_destroy(&sp);
    return 0;
}
