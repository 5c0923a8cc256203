/* Architectures as people write them, in every notation: what is read is written as text that reads as the same. The first byte is the space. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supernet/space/space.h"

static const char *const texts[] = {
    "input: 32x32x3\nactivation: relu\nnotation: nas-bench-201\ncells:\n  cell: {nodes: 3, ops: [none, skip_connect, "
    "nor_conv_1x1, nor_conv_3x3, avg_pool_3x3]}\nstages:\n- {block: cell, cell: cell}\nhead: {classes: 10}\n",
    "input: 64x64x3\nresolution: [32, 64]\nnotation:\n  join: ' '\n  columns: [resolution, 'stages.{0..1}.width', "
    "'stages.{0..1}.blocks.{0..1}.kernel', 'stages.{0..1}.depth']\nstages:\n"
    "- {block: mbconv, width: [16, 24], depth: [1, 2], kernel: [3, 5], expand: 4, stride: 2}\n"
    "- {block: mbconv, width: [32, 48], depth: [1, 2], kernel: [3, 5], expand: 4}\nhead: {classes: 10}\n",
    "input: 32x32x3\nstem: {width: [8, 16], kernel: 3}\nstages:\n"
    "- {block: mbconv, width: [16, 24], depth: [1, 2, 3], kernel: [3, 5, 7], expand: [3, 4, 6], stride: 2}\n"
    "- {block: mbconv, width: [32, 40], depth: [1, 2], kernel: [3, 5], expand: [3, 6], stride: 2}\n"
    "head: {width: [64, 128], classes: 10}\n",
};
enum { SPACES = sizeof texts / sizeof texts[0] };
static sn_space *spaces[SPACES];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < SPACES; i++) {
        es_yaml *doc = NULL;
        es_error e = {0};
        es_status s = es_yaml_parse("space", texts[i], strlen(texts[i]), &doc, &e);
        if (s == ES_OK)
            s = sn_space_read(es_yaml_root(doc), &spaces[i], &e);
        es_yaml_destroy(&doc);
        if (s != ES_OK)
            fprintf(stderr, "%d: %s: %s\n", i, e.where, e.text);
        ES_ASSERT(s == ES_OK);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const sn_space *sp = spaces[data[0] % SPACES];
    const sr_space *choices = sn_space_choices(sp);
    char *text = strndup((const char *)data + 1, size - 1);
    sr_arch *a = sr_arch_new(choices), *b = sr_arch_new(choices);
    es_error e;
    es_status s = sn_arch_parse(sp, text, a, &e);
    if (s == ES_OK) {
        char *again = sn_arch_format(sp, a);
        ES_ASSERT(sn_arch_parse(sp, again, b, &e) == ES_OK && sr_arch_equal(a, b));
        free(again);
        again = sr_arch_text(choices, a);
        ES_ASSERT(sr_arch_parse(choices, again, b, &e) == ES_OK && sr_arch_equal(a, b));
        free(again);
    } else {
        ES_ASSERT(e.code == s && e.text[0]);
    }
    es_str csv = ES_STR_INIT;
    s = sn_cost_csv(sp, "fuzz", (const char *)data + 1, size - 1, &csv, &e);
    ES_ASSERT(s == ES_OK || (e.code == s && e.text[0]));
    es_str_free(&csv);
    free(a);
    free(b);
    free(text);
    return 0;
}
