/* A published table of results: read with every value a fraction, or refused with a line. The first byte says which columns are asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supernet/table.h"

static const char space_text[] =
    "input: 8x8x3\nactivation: relu\nnotation: {columns: [stages.0.width, stages.0.blocks.0.kernel]}\n"
    "stages:\n- {block: conv, width: [8, 16, 32], kernel: [1, 3]}\nhead: {classes: 10}\n";
static sn_space *sp;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    es_yaml *doc = NULL;
    es_error e;
    ES_ASSERT(es_yaml_parse("space", space_text, strlen(space_text), &doc, &e) == ES_OK);
    es_status s = sn_space_read(es_yaml_root(doc), &sp, &e);
    if (s != ES_OK)
        fprintf(stderr, "%s: %s\n", e.where, e.text);
    ES_ASSERT(s == ES_OK);
    es_yaml_destroy(&doc);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    sn_table_config c = {.file = "fuzz.csv", .key = "arch", .value = "v", .report = "r"};
    if (data[0] & 1)
        snprintf(c.key, sizeof c.key, "n0,n1");
    if (data[0] & 2)
        c.report[0] = 0;
    sn_table *t = NULL;
    es_error e;
    es_status s = sn_table_parse(&c, sp, (const char *)data + 1, size - 1, &t, &e);
    if (s != ES_OK) {
        ES_ASSERT(t == NULL && e.code == s && e.where[0] && e.text[0]);
        return 0;
    }
    ES_ASSERT(sn_table_rows(t) >= 1);
    sr_arch *a = sr_arch_new(sn_space_choices(sp));
    for (uint64_t i = 0; sr_arch_nth(sn_space_choices(sp), i, a); i++) {
        double v;
        sn_evaluation ev;
        for (int split = 0; split < 2; split++) {
            sn_split which = split ? SN_TEST_SPLIT : SN_VALIDATION_SPLIT;
            s = sn_table_value(t, a, which, &v, &e);
            ES_ASSERT(s == ES_OK ? v >= 0 && v <= 1 : e.text[0] != 0);
            s = sn_table_evaluate(t, a, which, &ev, &e);
            ES_ASSERT(s == ES_OK ? ev.correct >= 0 && ev.correct <= ev.samples : e.text[0] != 0);
        }
    }
    free(a);
    sn_table_close(&t);
    return 0;
}
