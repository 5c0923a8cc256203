/* Any bytes are either a search whose text reads back as the same text, or a refusal that says where. */
#include <stdlib.h>
#include <string.h>

#include "supernet/searchfile/searchfile.h"

static void look_at(const sn_search_file *f)
{
    sn_search_file *again = NULL;
    es_error e;
    es_status s = sn_search_file_parse("again.yaml", f->text, strlen(f->text), NULL, &again, &e);
    ES_ASSERT(s == ES_OK && strcmp(f->text, again->text) == 0);
    sn_search_file_destroy(&again);
    const sr_space *choices = sn_space_choices(f->space);
    sr_arch *a = sr_arch_new(choices), *b = sr_arch_new(choices);
    for (int i = 0; i < 3; i++) {
        es_rng r = es_rng_make(1, ES_USE_TEST, (uint64_t)i);
        sn_cost c;
        sr_arch_random(choices, &r, a);
        char *text = sn_arch_format(f->space, a);
        s = sn_arch_parse(f->space, text, b, &e);
        ES_ASSERT(s == ES_OK && sr_arch_equal(a, b));
        s = sn_space_cost(f->space, a, &c, &e);
        ES_ASSERT(s == ES_OK && c.params > 0 && c.activation_bytes > 0);
        free(text);
    }
    free(a);
    free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sn_search_file *f = NULL;
    es_error e;
    es_status s = sn_search_file_parse("fuzz.yaml", (const char *)data, size, NULL, &f, &e);
    if (s == ES_OK)
        look_at(f);
    else
        ES_ASSERT(f == NULL && e.code == s && e.text[0]);
    sn_search_file_destroy(&f);
    return 0;
}
