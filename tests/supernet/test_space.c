/* Spaces: the grammar and its messages, notations, choices, costs by hand and against the twin benchmark's sizes. */
#include <dirent.h>

#include "supernet/space/cost.h"
#include "supernet/space/template.h"
#include "tests/check_main.h"
#include "tests/supernet/spaces.h"

static const char *const examples[] = {"nas-bench-201", "ofa-mbv3", "attentivenas", "entangled-conv", "entangled-cell",
                                       "fashion",       "mbconv32", "mbconv224",    "blocks",         "gpt"};
enum { EXAMPLES = sizeof examples / sizeof examples[0] };

static es_status parse(const char *text, sn_space **out, char line[700])
{
    es_yaml *doc = NULL;
    es_error err = {0};
    *out = NULL;
    line[0] = 0;
    es_status s = es_yaml_parse("s.yaml", text, strlen(text), &doc, &err);
    if (s == ES_OK)
        s = sn_space_read(es_yaml_root(doc), out, &err);
    es_yaml_destroy(&doc);
    if (s != ES_OK)
        es_error_line(&err, line, 700);
    return s;
}

/* Every file in examples/spaces is in the list above, so that every space is tested. */
START_TEST(no_example_is_forgotten)
    {
        DIR *d = opendir(es_test_source("examples/spaces"));
        ck_assert(d != NULL);
        int found = 0;
        for (struct dirent *e; (e = readdir(d));) {
            size_t n = strlen(e->d_name);
            if (n < 5 || strcmp(e->d_name + n - 5, ".yaml") != 0)
                continue;
            bool known = false;
            for (int i = 0; i < EXAMPLES; i++)
                known |= strlen(examples[i]) == n - 5 && strncmp(examples[i], e->d_name, n - 5) == 0;
            ck_assert_msg(known, "%s is not tested", e->d_name);
            found++;
        }
        closedir(d);
        ck_assert_int_eq(found, EXAMPLES);
    }
END_TEST

START_TEST(notations_round_trip)
    {
        for (int i = 0; i < EXAMPLES; i++) {
            sn_space *sp = space_load(examples[i]);
            const sr_space *ch = sn_space_choices(sp);
            sr_arch *a = sr_arch_new(ch), *b = sr_arch_new(ch);
            for (int t = 0; t < 200; t++) {
                es_rng r = es_rng_make(7, ES_USE_TEST, (uint64_t)t);
                es_error err = {0};
                if (t == 0)
                    sr_arch_smallest(ch, a);
                else if (t == 1)
                    sr_arch_largest(ch, a);
                else
                    sr_arch_random(ch, &r, a);
                char *text = sn_arch_format(sp, a), *plain = sr_arch_text(ch, a);
                ck_assert_ok_err(sn_arch_parse(sp, text, b, &err), &err);
                ck_assert_msg(sr_arch_equal(a, b), "%s: %s", examples[i], text);
                ck_assert_ok_err(sn_arch_parse(sp, plain, b, &err), &err); /* search's own text, too */
                ck_assert(sr_arch_equal(a, b));
                /* No prefix and no text with one letter more is taken for an architecture. */
                for (size_t n = 0; n < strlen(text) && t < 10; n++) {
                    char *cut = strndup(text, n);
                    bool constant_left_out = strcmp(examples[i], "ofa-mbv3") == 0 && text[n] == ',';
                    ck_assert_msg(constant_left_out || sn_arch_parse(sp, cut, b, NULL) != ES_OK || !sr_arch_equal(a, b),
                                  "%s: %s", examples[i], cut);
                    free(cut);
                }
                char *more = malloc(strlen(text) + 2);
                snprintf(more, strlen(text) + 2, "%sx", text);
                ck_assert_status(sn_arch_parse(sp, more, b, NULL), ES_INVALID);
                free(more);
                free(text);
                free(plain);
            }
            free(a);
            free(b);
            sn_space_destroy(&sp);
        }
    }
END_TEST

START_TEST(sizes_of_published_spaces)
    {
        static const struct {
            const char *name;
            uint64_t count;
        } sizes[] = {{"nas-bench-201", 15625}, {"entangled-conv", 6561}, {"entangled-cell", 4096}};
        for (int i = 0; i < 3; i++) {
            sn_space *sp = space_load(sizes[i].name);
            uint64_t n;
            ck_assert(sr_space_count(sn_space_choices(sp), &n));
            ck_assert_uint_eq(n, sizes[i].count);
            sn_space_destroy(&sp);
        }
        sn_space *sp = space_load("ofa-mbv3"); /* (9^2 + 9^3 + 9^4)^5, about 2 x 10^19 */
        ck_assert_double_eq_tol(sr_space_log10_size(sn_space_choices(sp)), 19.3376, 1e-3);
        sn_space_destroy(&sp);
    }
END_TEST

/* One inverted bottleneck of the benchmark's twin, counted there with one line of Python. */
static int64_t twin_block(int in, int out, int e, int k, int side, bool se, int64_t *macs)
{
    int64_t m = (int64_t)in * e, p = 0;
    if (e > 1)
        p += in * m + 2 * m;
    p += (int64_t)k * k * m + 2 * m + m * out + 2 * out;
    *macs += m * k * k * side * side + m * out * side * side;
    if (se) {
        p += m * (m / 4) + m / 4 + (m / 4) * m + m;
        *macs += 2 * m * (m / 4);
    }
    return p;
}

START_TEST(twin_sizes)
    {
        /* The largest of `fashion`: stem 16, two stages of three layers 24 and 40 wide with kernel 5 and expansion 6, head 6 x 40 and 256. */
        sn_space *sp = space_load("fashion");
        sr_arch *a = sr_arch_new(sn_space_choices(sp));
        sn_cost c;
        for (int largest = 0; largest < 2; largest++) {
            ck_assert_ok(sn_arch_parse(sp, largest ? "largest" : "smallest", a, NULL));
            ck_assert_ok(sn_space_cost(sp, a, &c, NULL));
            int stem = largest ? 16 : 8, depth = largest ? 3 : 1, k = largest ? 5 : 3, e = largest ? 6 : 3,
                last = largest ? 256 : 128, in = stem;
            int64_t macs = 9 * stem * 28 * 28, params = 9 * stem + 2 * stem;
            for (int s = 0, side = 28; s < 2; s++) {
                int out = (s ? 32 : 16) + (largest ? 8 : 0);
                for (int l = 0; l < depth; l++, in = out) {
                    macs += (int64_t)in * in * e * side * side; /* the expansion is before the stride */
                    side = l == 0 ? side / 2 : side;
                    params += twin_block(in, out, e, k, side, false, &macs);
                }
            }
            params += in * in * 6 + 2 * in * 6 + in * 6 * last + last * 10 + 10;
            macs += (int64_t)in * in * 6 * 7 * 7 + in * 6 * last + last * 10;
            ck_assert_int_eq(c.params, params);
            ck_assert_int_eq(c.macs, macs);
        }
        free(a);
        sn_space_destroy(&sp);
    }
END_TEST

/* Numbers of torch_supernet.py: sums of the tensors that an architecture reads (largest, smallest). */
START_TEST(twin_sizes_of_mbconv)
    {
        static const struct {
            const char *name;
            int64_t largest, smallest;
        } twin[] = {{"fashion", 169162, 36394}, {"mbconv32", 21252698, 7105770}, {"mbconv224", 23217848, 8880840}};
        for (int i = 0; i < 3; i++) {
            sn_space *sp = space_load(twin[i].name);
            sr_arch *a = sr_arch_new(sn_space_choices(sp));
            sn_cost c;
            sr_arch_largest(sn_space_choices(sp), a);
            ck_assert_ok(sn_space_cost(sp, a, &c, NULL));
            ck_assert_int_eq(c.params, twin[i].largest);
            sr_arch_smallest(sn_space_choices(sp), a);
            ck_assert_ok(sn_space_cost(sp, a, &c, NULL));
            ck_assert_int_eq(c.params, twin[i].smallest);
            free(a);
            sn_space_destroy(&sp);
        }
    }
END_TEST

START_TEST(explain_adds_up)
    {
        for (int i = 0; i < EXAMPLES; i++) {
            sn_space *sp = space_load(examples[i]);
            sr_arch *a = sr_arch_new(sn_space_choices(sp));
            for (int t = 0; t < 5; t++) {
                es_rng r = es_rng_make(3, ES_USE_TEST, (uint64_t)t);
                sr_arch_random(sn_space_choices(sp), &r, a);
                sn_layer *layers;
                int count;
                sn_cost c;
                int64_t params = 0, macs = 0;
                ck_assert_ok(sn_space_explain(sp, a, &layers, &count, NULL));
                ck_assert_ok(sn_space_cost(sp, a, &c, NULL));
                for (int l = 0; l < count; l++) {
                    params += layers[l].params;
                    macs += layers[l].macs;
                }
                ck_assert_int_eq(params, c.params);
                ck_assert_int_eq(macs, c.macs);
                ck_assert_int_ge(c.activation_bytes,
                                 4 * (layers[0].out.d[1] * layers[0].out.d[2] * layers[0].out.d[3]));
                ck_assert_int_eq(layers[count - 1].out.d[3], sn_space_classes(sp));
                free(layers);
                es_str text = ES_STR_INIT, dot = ES_STR_INIT;
                ck_assert_ok(sn_explain_print(sp, a, &text, NULL));
                ck_assert_has(text.p, sn_space_tokens(sp) ? "head.logits" : "head.classifier");
                ck_assert_ok(sn_explain_dot(sp, a, &dot, NULL));
                ck_assert_has(dot.p, "digraph architecture {");
                ck_assert_has(dot.p, "n1 -> n2");
                es_str_free(&text);
                es_str_free(&dot);
            }
            free(a);
            sn_space_destroy(&sp);
        }
    }
END_TEST

START_TEST(fixed_space_is_one_architecture)
    {
        for (int i = 0; i < EXAMPLES; i++) {
            sn_space *sp = space_load(examples[i]), *one = NULL;
            sr_arch *a = sr_arch_new(sn_space_choices(sp));
            for (int t = 0; t < 10; t++) {
                es_rng r = es_rng_make(5, ES_USE_TEST, (uint64_t)t);
                sr_arch_random(sn_space_choices(sp), &r, a);
                ck_assert_ok(sn_space_fix(sp, a, &one, NULL));
                ck_assert_int_eq(sr_space_choices(sn_space_choices(one)), 0);
                sr_arch *only = sr_arch_new(sn_space_choices(one));
                sn_cost c, d;
                ck_assert_ok(sn_space_cost(sp, a, &c, NULL));
                ck_assert_ok(sn_space_cost(one, only, &d, NULL));
                ck_assert_int_eq(c.params, d.params);
                ck_assert_int_eq(c.macs, d.macs);
                ck_assert_int_eq(c.activation_bytes, d.activation_bytes);
                free(only);
                sn_space_destroy(&one);
            }
            free(a);
            sn_space_destroy(&sp);
        }
    }
END_TEST

/* conv 1x1 to 4 channels, then 8 on 2x2x3 images, by hand: images 48 bytes, first output 64, second 128; the most is alive at the second convolution. */
START_TEST(activation_bytes_by_hand)
    {
        sn_space *sp;
        char line[700];
        ck_assert_msg(parse("input: 2x2x3\nstages:\n- {block: conv, kernel: 1, width: 4}\n- {block: conv, kernel: 1, "
                            "width: 8}\nhead: {classes: 2}\n",
                            &sp, line) == ES_OK,
                      "%s", line);
        sr_arch *a = sr_arch_new(sn_space_choices(sp));
        sn_cost c;
        ck_assert_ok(sn_space_cost(sp, a, &c, NULL));
        ck_assert_int_eq(c.activation_bytes, 64 + 128);
        ck_assert_int_eq(c.params, 3 * 4 + 8 + 4 * 8 + 16 + 8 * 2 + 2);
        ck_assert_int_eq(c.macs, (12 + 32) * 4 + 16);
        free(a);
        sn_space_destroy(&sp);
    }
END_TEST

START_TEST(options_are_ordered)
    {
        sn_space *sp;
        char line[700];
        ck_assert_msg(parse("input: 8x8x3\nstages:\n- {block: conv, width: [32, 16], groups: [1, 8, 2], kernel: "
                            "{choose: [5, 3], per: stage}, depth: [2, 1]}\n"
                            "- {block: [residual, conv], width: 16, se: [true, false], activation: [relu, "
                            "silu]}\nhead: {classes: 2}\nstem: {width: 8}\n",
                            &sp, line) == ES_OK,
                      "%s", line);
        char *text;
        sr_arch *a = sr_arch_new(sn_space_choices(sp));
        sr_arch_largest(sn_space_choices(sp), a);
        text = sn_arch_format(sp, a);
        ck_assert_str_eq(text, "0:d2:w32:k5:g1.1+1:bconv:son:asilu");
        free(text);
        sr_arch_smallest(sn_space_choices(sp), a);
        text = sn_arch_format(sp, a);
        ck_assert_str_eq(text, "0:d1:w16:k3:g8+1:bresidual:soff:arelu");
        free(text);
        free(a);
        sn_space_destroy(&sp);
    }
END_TEST

#define HEAD "\nhead: {classes: 10}\n"
static const struct {
    const char *text, *message;
} bad[] = {
    {"input: 8x8x3\nstages:\n- {block: conv, width: 8}\n", "s.yaml:1:1: `head` is missing"},
    {"stages:\n- {block: conv, width: 8}" HEAD, "`input` is missing: height x width x channels, as 32x32x3"},
    {"input: 8x8\nstages:\n- {block: conv, width: 8}" HEAD, "s.yaml:1:8: input: expected height x width x channels"},
    {"input: 8x8x3\nstages:\n- {block: conv, widht: 8}" HEAD, "did you mean"},
    {"input: 8x8x3\nstages:\n- {block: mbcnv, width: 8}" HEAD, "stages[0].block"},
    {"input: 8x8x3\nstages:\n- {block: conv}" HEAD, "`width` is missing"},
    {"input: 8x8x3\nstages:\n- {width: 8}" HEAD, "a stage needs `block:`"},
    {"input: 8x8x3\nstages:\n- {block: conv, width: 8, kernel: [3, 4]}" HEAD, "kernel 4 is even"},
    {"input: 8x8x3\nstages:\n- {block: conv, width: [8, 8]}" HEAD, "8 is there twice"},
    {"input: 8x8x3\nstages:\n- {block: conv, width: [8, wide]}" HEAD, "s.yaml:3:28: stages[0].width[1]"},
    {"input: 8x8x3\nstages:\n- {block: conv, width: []}" HEAD, "0 options; allowed: 1 to 32"},
    {"input: 8x8x3\nstages:\n- {block: conv, width: 8, groups: 3}" HEAD, "3 groups do not divide"},
    {"input: 8x8x3\nstages:\n- {block: conv, width: 8, depth: 0}" HEAD, "stages[0].depth"},
    {"input: 8x8x3\nstages:\n- {block: conv, width: 8, expand: 6}" HEAD, "stages[0].expand"},
    {"input: 8x8x3\nstages:\n- {block: pool, kernel: 16}" HEAD, "stages[0].kernel"},
    {"input: 8x8x3\nstages:\n- {block: pool, kernel: 12}" HEAD, "the input is too small for this kernel and stride"},
    {"input: 8x8x3\nstages:\n- {block: pool, kernel: [2, 3]}" HEAD, "a pooling layer has one kernel"},
    {"input: 8x8x3\nstages:\n- {block: conv, width: 8, kernel: [3, 5], padding: 1}" HEAD,
     "a fixed padding needs one kernel"},
    {"input: 8x8x3\nstages:\n- {block: cell, cell: a}" HEAD, "the space has no `cells`"},
    {"input: 8x8x3\ncells: {a: {nodes: 2, ops: [none, conv9]}}\nstages:\n- {block: cell, cell: a}" HEAD,
     "cells.a.ops[1]"},
    {"input: 8x8x3\ncells: {a: {nodes: 2, ops: [none], input: project}}\nstages:\n- {block: cell, cell: a}" HEAD,
     "`width` is missing: this cell's input"},
    {"input: 8x8x3\ncells: {a: {nodes: 2, ops: [none]}}\nstages:\n- {block: cell, cell: a, width: 8}" HEAD,
     "`width` is only for cells with `input: project`"},
    {"input: 8x8x3\ncells: {a: {nodes: 2, edges: [{from: 1, to: 1, ops: [none]}]}}\nstages:\n- {block: cell, cell: "
     "a}" HEAD,
     "a later node `to`"},
    {"input: 8x8x3\nstages:\n- {block: conv, width: [8, 16]}\nhead: {pool: flatten, classes: 10}\n",
     "needs a fixed number of channels"},
    {"input: 8x8x3\nresolution: [4, 8]\nstages:\n- {block: conv, width: 8}\nhead: {pool: flatten, classes: 10}\n",
     "needs one resolution"},
    {"input: 8x6x3\nresolution: 4\nstages:\n- {block: conv, width: 8}" HEAD, "only a square input can be resized"},
    {"input: 224x224x3\nresolution: 223\nstages:\n- {block: conv, width: 8}" HEAD, "no small ratio (223/224)"},
    {"input: 8x8x3\nnotation: nas-bench-201\nstages:\n- {block: conv, width: 8}" HEAD, "this space has other choices"},
    {"input: 8x8x3\nnotation: {columns: [stages.0.width]}\nstages:\n- {block: conv, width: [8, 16], depth: [1, "
     "2]}" HEAD,
     "no column has stages.0.depth"},
    {"input: 8x8x3\nnotation: {columns: [stages.0.size]}\nstages:\n- {block: conv, width: [8, 16]}" HEAD,
     "the space has no field stages.0.size"},
    {"input: 8x8x3\nnotation: {join: 'a:', columns: [stages.0.width]}\nstages:\n- {block: conv, width: [8, 16]}" HEAD,
     "they end columns"},
    {"input: 8x8x3\nnotation: {join: '1', columns: [stages.0.width stages.0.blocks.0.kernel]}\nstages:\n- {block: "
     "conv, width: "
     "[8, 16], kernel: [1, 3]}" HEAD,
     "has a character of stages.0.width's option 16"},
    {"input: 8x8x3\nstages:\n- {block: conv, width: 8}\nhead: {classes: 1}\n", "head.classes"},
    {"input: 8x8x3\nstages: 3" HEAD, "stages"},
};

START_TEST(bad_input)
    {
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            sn_space *sp = NULL;
            char line[700];
            es_status s = parse(bad[i].text, &sp, line);
            ck_assert_msg(s == ES_INVALID && sp == NULL, "accepted: %s", bad[i].text);
            ck_assert_msg(strstr(line, bad[i].message) != NULL && strncmp(line, "s.yaml:", 7) == 0,
                          "%s gives \"%s\", not \"%s\"", bad[i].text, line, bad[i].message);
        }
    }
END_TEST

START_TEST(bad_architectures)
    {
        static const struct {
            const char *space, *text, *message;
        } cases[] = {
            {"fashion", "stem:w9+0:d1:w16:k3:e3+1:d1:w32:k3:e3+head:w128", "stem.width cannot be '9'; allowed: 8, 16"},
            {"fashion", "stem:w8+0:d1:w16:k3:e3+1:d1:w32:k3:e3", "head.width is missing: expected head:w..."},
            {"fashion", "stem:w8+0:d1:w16:k3.3:e3+1:d1:w32:k3:e3+head:w128",
             "more options than the architecture has layers"},
            {"fashion", "stem:w8+0:d2:w16:k3:e3.3+1:d1:w32:k3:e3+head:w128", "stages.0.blocks.1.kernel is missing"},
            {"fashion", "stem:w8+0:d1:w16:k3:e3+1:d1:w32:k3:e3+head:w128+2:d1", "no choice of this space"},
            {"fashion", "", "is missing"},
            {"nas-bench-201", "|none~0|+|none~0|none~1|", "expected '+' before node 3"},
            {"nas-bench-201", "|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "expected ~0| after an op of node 1"},
            {"nas-bench-201", "|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|",
             "cells.cell.1.0 cannot be 'conv'; allowed: none, skip_connect"},
            {"ofa-mbv3", "333,444", "column 1 ends before"},
            {"ofa-mbv3", "33333353555533335335,44444364366346433444", "2 columns; expected 4, joined by commas"},
            {"ofa-mbv3", "33333353555533335335,44444364366346433444,33343,224,1", "more than 4 columns"},
            {"ofa-mbv3", "33333353555533335335,44444364366346433444,33343,192",
             "resolution cannot be '192'; allowed: 224"},
            {"ofa-mbv3", "333333535555333353351,44444364366346433444,33343,224",
             "column 1 has more than its 20 values: 1"},
        };
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            sn_space *sp = space_load(cases[i].space);
            sr_arch *a = sr_arch_new(sn_space_choices(sp));
            es_error err = {0};
            ck_assert_status(sn_arch_parse(sp, cases[i].text, a, &err), ES_INVALID);
            ck_assert_has(err.text, cases[i].message);
            ck_assert_str_eq(err.where, "architecture");
            free(a);
            sn_space_destroy(&sp);
        }
    }
END_TEST

/* Other separators, blanks around them, and no constant column at the end: the same architecture. */
START_TEST(columns_are_read_kindly)
    {
        static const char *const same[] = {"33333353555533335335,44444364366346433444,33343,224",
                                           "33333353555533335335, 44444364366346433444 ,33343 , 224",
                                           "33333353555533335335:44444364366346433444:33343:224",
                                           "33333353555533335335,44444364366346433444,33343"};
        sn_space *sp = space_load("ofa-mbv3");
        sr_arch *a = sr_arch_new(sn_space_choices(sp)), *b = sr_arch_new(sn_space_choices(sp));
        ck_assert_ok(sn_arch_parse(sp, same[0], a, NULL));
        for (int i = 1; i < 4; i++) {
            es_error err = {0};
            ck_assert_ok_err(sn_arch_parse(sp, same[i], b, &err), &err);
            ck_assert(sr_arch_equal(a, b));
        }
        free(a);
        free(b);
        sn_space_destroy(&sp);
    }
END_TEST

START_TEST(cost_csv)
    {
        sn_space *sp = space_load("ofa-mbv3");
        es_str out = ES_STR_INIT;
        es_error err = {0};
        const char *two = "33333353555533335335,44444364366346433444,33343,224\n\n\"33333533537775355535,"
                          "33463334334633333433,22222,224\"\r\n";
        ck_assert_ok_err(sn_cost_csv(sp, "a.txt", two, strlen(two), &out, &err), &err);
        ck_assert_has(out.p, "architecture,params,macs,activation_bytes\n\"33333353555533335335,44444364366346433444,"
                             "33343,224\",4819200,265450224,");
        ck_assert_has(out.p, "\n\"33333533537775355535,33463334334633333433,22222,224\",3588304,129529712,");
        es_str_clear(&out);
        const char *wrong = "33333353555533335335,44444364366346433444,33343,224\nnonsense\n";
        ck_assert_status(sn_cost_csv(sp, "a.txt", wrong, strlen(wrong), &out, &err), ES_INVALID);
        ck_assert_str_eq(err.where, "a.txt:2: architecture");
        es_str_free(&out);
        sn_space_destroy(&sp);
    }
END_TEST

ES_TEST_MAIN("space", no_example_is_forgotten, notations_round_trip, sizes_of_published_spaces, twin_sizes,
             twin_sizes_of_mbconv, explain_adds_up, fixed_space_is_one_architecture, activation_bytes_by_hand,
             options_are_ordered, bad_input, bad_architectures, columns_are_read_kindly, cost_csv)
