/* The search file: what a full one means, every default, what each mistake says, and that the normalised text means the same. */
#include <math.h>

#include "base/file.h"
#include "supernet/searchfile/searchfile.h"
#include "tests/check_main.h"

#define TASK "task: {data: {train: t, validation: 10}}\n"
#define SPACE "space: {input: 8x8x1, stages: [{block: conv, width: [8, 16]}], head: {classes: 10}}\n"

static es_status parse(const char *text, const char *dir, sn_search_file **out, char line[700])
{
    es_error err = {0};
    line[0] = 0;
    es_status s = sn_search_file_parse("search.yaml", text, strlen(text), dir, out, &err);
    if (s != ES_OK)
        es_error_line(&err, line, 700);
    return s;
}

static sn_search_file *good(const char *text, const char *dir)
{
    sn_search_file *f;
    char line[700];
    es_status s = parse(text, dir, &f, line);
    ck_assert_msg(s == ES_OK, "%s", line);
    return f;
}

static const char full[] =
    "name: fashion-small\nseed: 7\n"
    "task:\n  kind: image-classification\n  data: {format: idx, train: data/train, test: /abs/t10k, validation: 10k, "
    "limit: 500}\n"
    "  augment: {pad_crop: 2, flip: true, cutout: 4, normalise: false}\n"
    "space:\n  input: 28x28x1\n  stem: {width: [8, 16], kernel: 3, stride: 1}\n  stages:\n"
    "    - {block: mbconv, width: [16, 24], depth: [1, 2, 3], kernel: [3, 5], expand: [3, 4, 6], stride: 2}\n"
    "  head: {width: [128, 256], classes: 10}\n"
    "supernet: {method: sandwich, random_subnets: 3, distill: alpha, epochs: 20, batch: 256, smoothing: 0.1, "
    "slice_steps: 50, slice_seconds: 5, calibration: 512,\n"
    "  optimizer: {kind: sgd, lr: 0.2, momentum: 0.8, nesterov: false, decay: 1e-4, clip_norm: 5, clip_value: 1, ema: "
    "0.99},\n"
    "  schedule: {kind: exponential, lr_min: 0.01, warmup_epochs: 2, every: 100, factor: 0.9}}\n"
    "search: {algorithm: regularised-evolution, population: 50, sample: 10, mutation: 0.1, crossover: 0.5, "
    "restarts_from: 3, evaluations: 1000, validation: 2000}\n"
    "objectives: [accuracy: max, macs: min, latency_ms: min]\n"
    "constraints: {params: {max: 500k}, latency_ms: {max: 5}, accuracy: {min: 0.5}, activation_bytes: {min: 10, max: "
    "1M}}\n"
    "finish: {retrain: none, export: [safetensors]}\nresources: {priority: 3, gpus: 2}\n";

static void check_full(const sn_search_file *f)
{
    ck_assert_str_eq(f->name, "fashion-small");
    ck_assert_uint_eq(f->seed, 7);
    ck_assert_int_eq(f->task, SN_TASK_IMAGES);
    ck_assert_int_eq(f->data.format, SN_DATA_IDX);
    ck_assert_str_eq(f->data.train, "/place/data/train");
    ck_assert_str_eq(f->data.test, "/abs/t10k");
    ck_assert_int_eq(f->data.validation, 10000);
    ck_assert_int_eq(f->data.limit, 500);
    ck_assert(f->augment.pad_crop == 2 && f->augment.flip && f->augment.cutout == 4 && !f->augment.normalise);
    const sn_supernet_config *c = &f->supernet;
    ck_assert(c->method == SN_METHOD_SANDWICH && c->random_subnets == 3 && c->distill == SN_DISTILL_ALPHA &&
              c->epochs == 20 && c->batch == 256);
    ck_assert(c->smoothing == 0.1f && c->slice_steps == 50 && c->slice_seconds == 5 && c->calibration == 512 &&
              c->warmup_epochs == 2);
    const kn_optim_config *o = &c->optimizer;
    ck_assert(o->kind == KN_SGD && o->momentum == 0.8f && !o->nesterov && o->decay == 1e-4f && o->clip_norm == 5 &&
              o->clip_value == 1 && o->ema == 0.99f);
    ck_assert(c->schedule.kind == KN_EXPONENTIAL && c->schedule.lr == 0.2f && c->schedule.lr_min == 0.01f &&
              c->schedule.every == 100 && c->schedule.factor == 0.9f);
    ck_assert_str_eq(f->algorithm, "regularised-evolution");
    ck_assert(f->options.population == 50 && f->options.sample == 10 && f->options.mutation == 0.1 &&
              f->options.crossover == 0.5 && f->options.restarts_from == 3);
    ck_assert(f->evaluations == 1000 && f->validation_limit == 2000 && f->priority == 3 && f->gpus == 2 &&
              f->export_safetensors && !f->export_onnx);
    ck_assert(f->objectives == 3 && f->objective[0].measure == SN_MEASURE_ACCURACY && f->objective[0].maximise &&
              f->objective[2].measure == SN_MEASURE_LATENCY_MS);
    ck_assert_int_eq(f->limits, 4);
    ck_assert(f->limit[0].measure == SN_MEASURE_PARAMS && f->limit[0].max == 500000 && f->limit[0].min == -INFINITY);
    uint64_t n;
    ck_assert(sr_space_count(sn_space_choices(f->space), &n));
    ck_assert_uint_eq(n, 2 * 2 * 2 * (6 + 36 + 216));
}

START_TEST(every_field)
    {
        sn_search_file *f = good(full, "/place"), *again;
        check_full(f);
        /* What is stored and read again by every worker: the same meaning, whatever the folder, and the same text. */
        again = good(f->text, NULL);
        check_full(again);
        ck_assert_str_eq(f->text, again->text);
        sn_search_file_destroy(&again);
        sn_search_file_destroy(&f);
    }
END_TEST

START_TEST(defaults)
    {
        sn_search_file *f = good(TASK SPACE, "/d");
        ck_assert_str_eq(f->name, "search");
        ck_assert_str_eq(f->data.train, "/d/t");
        ck_assert(f->seed == 1 && f->augment.normalise && !f->augment.flip && f->data.test[0] == 0 &&
                  f->data.limit == 0);
        ck_assert(f->supernet.method == SN_METHOD_SANDWICH && f->supernet.distill == SN_DISTILL_KL &&
                  f->supernet.random_subnets == 2);
        ck_assert(f->supernet.optimizer.kind == KN_SGD && f->supernet.optimizer.momentum == 0.9f &&
                  f->supernet.optimizer.nesterov && f->supernet.schedule.lr == 0.1f);
        ck_assert(f->supernet.schedule.kind == KN_COSINE && f->supernet.calibration == 2048);
        ck_assert_str_eq(f->algorithm, "nsga2");
        ck_assert(f->options.population == 64 && f->evaluations == 200 && f->objectives == 2 && f->limits == 0 &&
                  f->export_safetensors && f->gpus == 1);
        sn_search_file_destroy(&f);
        f = good(TASK SPACE "supernet: {method: modules, epochs: 6, modules: {cuts: [1, 2]}, optimizer: {kind: "
                            "adamw}}\nobjectives: [accuracy]\n",
                 NULL);
        ck_assert_str_eq(f->data.train, "t");
        ck_assert(f->supernet.modules.parts == 3 && f->supernet.modules.cuts == 2 && f->supernet.modules.cut[1] == 2);
        ck_assert(f->supernet.modules.epochs_meta == 6 && f->supernet.modules.epochs_part == 2 &&
                  f->supernet.distill == SN_DISTILL_NONE);
        ck_assert(f->supernet.optimizer.kind == KN_ADAMW && f->supernet.schedule.lr == 1e-3f &&
                  f->supernet.optimizer.beta2 == 0.999f);
        ck_assert(f->objectives == 1 && f->objective[0].maximise);
        sn_search_file_destroy(&f);
    }
END_TEST

START_TEST(space_of_a_file)
    {
        const char *dir = es_test_dir(), *path = es_test_join(dir, "s.yaml");
        ck_assert_ok(es_file_write(es_test_join(dir, "small.yaml"), SPACE, strlen(SPACE), NULL));
        static const char text[] =
            "task: {kind: table, file: t.csv, architecture: \"a,b\", value: acc, report: test}\nspace: small.yaml\n";
        ck_assert_ok(es_file_write(path, text, strlen(text), NULL));
        sn_search_file *f, *again;
        es_error err = {0};
        ck_assert_ok_err(sn_search_file_load(path, &f, &err), &err);
        ck_assert_int_eq(f->task, SN_TASK_TABLE);
        ck_assert_str_eq(f->table.key, "a,b");
        ck_assert_str_eq(f->table.value, "acc");
        ck_assert_str_eq(f->table.report, "test");
        ck_assert_str_eq(f->table.file, es_test_join(dir, "t.csv"));
        ck_assert_has(f->text, "space: {input: 8x8x1, ");
        again = good(f->text, NULL); /* the file is no longer needed */
        ck_assert_str_eq(again->text, f->text);
        ck_assert_str_eq(again->table.file, f->table.file);
        sn_search_file_destroy(&again);
        sn_search_file_destroy(&f);
        ck_assert_status(sn_search_file_load(es_test_join(dir, "none.yaml"), &f, &err), ES_NOT_FOUND);
        ck_assert_has(err.where, "none.yaml");
    }
END_TEST

START_TEST(problem)
    {
        sn_search_file *f = good(full, "/place");
        sr_problem p;
        sn_search_file_problem(f, &p);
        ck_assert(p.space == sn_space_choices(f->space) && p.objectives == 3 && p.maximise[0] && !p.maximise[1] &&
                  p.evaluations == 1000);
        ck_assert_str_eq(p.names[2], "latency_ms");
        ck_assert(p.constraints == 4 && p.constraint[0].cost == 0 && p.constraint[1].cost == -3 &&
                  p.constraint[2].cost == -1 && p.constraint[3].cost == 2);
        ck_assert_str_eq(p.constraint[0].name, "params");
        sr_arch *a = sr_arch_new(p.space);
        double costs[3];
        sn_cost c;
        p.costs(p.ctx, a, costs);
        ck_assert_ok(sn_space_cost(f->space, a, &c, NULL));
        ck_assert(costs[0] == (double)c.params && costs[1] == (double)c.macs && costs[2] == (double)c.activation_bytes);
        free(a);
        sn_search_file_destroy(&f);
    }
END_TEST

START_TEST(infeasible)
    {
        const char *path = es_test_join(es_test_dir(), "s.yaml");
        static const char text[] = TASK SPACE "constraints: {params: {max: 10}}\n";
        ck_assert_ok(es_file_write(path, text, strlen(text), NULL));
        sn_search_file *f;
        es_error err = {0};
        ck_assert_status(sn_search_file_load(path, &f, &err), ES_INFEASIBLE);
        ck_assert(f == NULL);
        ck_assert_has(err.where, "s.yaml");
        ck_assert_has(err.text, "params");
        printf("%s: %s\n", err.where, err.text);
    }
END_TEST

static const struct {
    const char *text, *message;
} bad[] = {
    {"", ""},
    {"- a\n", "search.yaml:1:1"},
    {"name: x\n" SPACE, "`task` is missing: what is to be learned"},
    {TASK, "`space` is missing"},
    {"nmae: x\n" TASK SPACE, "search.yaml:1:1: nmae: unknown field \"nmae\", did you mean \"name\"?"},
    {"name: a/b\n" TASK SPACE, "search.yaml:1:7: name: a name has no '/'"},
    {"seed: -1\n" TASK SPACE, "search.yaml:1:7: seed: -1 is"},
    {"seed: seven\n" TASK SPACE, "\"seven\" is not a whole number"},
    {"task: {kind: image-clasification}\n" SPACE,
     "search.yaml:1:14: task.kind: \"image-clasification\" is not known, did you mean \"image-classification\"?"},
    {"task: {kind: image-classification}\n" SPACE, "`data` is missing"},
    {"task: 3\n" SPACE, "search.yaml:1:7: task: this is a single value, a map is expected"},
    {"task: {data: {format: idx}}\n" SPACE, "task.data: `train` is missing"},
    {"task: {data: {format: zip, train: a}}\n" SPACE, "task.data.format: \"zip\" is not"},
    {"task: {data: {train: \"\"}}\n" SPACE, "task.data.train: an empty path"},
    {"task: {data: {train: a, validation: 0}}\n" SPACE,
     "task.data.validation: 0 samples are held out, but the objective `accuracy` needs some"},
    {"task: {data: {train: a, validation: many}}\n" SPACE, "task.data.validation: \"many\" is not a whole number"},
    {"task: {data: {train: a}, augment: {crop: 2}}\n" SPACE, "task.augment.crop: unknown field"},
    {"task: {kind: table, file: t.csv}\n" SPACE, "`value` is missing; a table needs"},
    {"task: {kind: table, file: t.csv, value: v}\nsupernet: {epochs: 3}\n" SPACE,
     "search.yaml:2:11: supernet: a search of a table trains nothing"},
    {"task: {kind: table, file: t.csv, value: v}\nobjectives: [latency_ms: min]\n" SPACE,
     "latency cannot be measured in a search of a table"},
    {TASK "space: nowhere.yaml\n", "search.yaml:2:8: space: there is no file /place/nowhere.yaml"},
    {TASK "space: {input: 8x8x1, stages: [{block: conv, width: 8, depht: 2}], head: {classes: 2}}\n",
     "search.yaml:2:56: space.stages[0].depht: unknown field \"depht\", did you mean \"depth\"?"},
    {TASK SPACE "supernet: {method: sandwhich}\n",
     "search.yaml:3:20: supernet.method: \"sandwhich\" is not known, did you mean \"sandwich\"?"},
    {TASK SPACE "supernet: {epochs: 0}\n", "supernet.epochs: 0 is out of range"},
    {TASK SPACE "supernet: {batch: 100}\nresources: {gpus: 3}\n",
     "search.yaml:4:19: resources.gpus: 3 ranks cannot share a batch of 100 evenly"},
    {TASK SPACE "supernet: {gang_subnets: none}\n", "supernet.gang_subnets: \"none\" is not"},
    {TASK SPACE "supernet: {batch: 1.5}\n", "supernet.batch: \"1.5\" is not a whole number"},
    {TASK SPACE "supernet: {method: single-path, distill: kl}\n",
     "supernet.distill: only `method: sandwich` has a teacher"},
    {TASK SPACE "supernet: {method: single-path, random_subnets: 2}\n",
     "supernet.random_subnets: is for `method: sandwich`"},
    {TASK SPACE "supernet: {modules: {parts: 2}}\n", "supernet.modules: is for `method: modules`"},
    {TASK SPACE "supernet: {method: modules, modules: {parts: 1}}\n", "supernet.modules.parts: 1 is"},
    {TASK SPACE "supernet: {method: modules, modules: {parts: 2, cuts: [1, 2]}}\n", "one less than `parts`"},
    {TASK SPACE "supernet: {method: modules, modules: {cuts: [3, 2]}}\n", "supernet.modules.cuts[1]: cuts are rising"},
    {TASK SPACE "supernet: {optimizer: {kind: adam, momentum: 0.9}}\n",
     "supernet.optimizer.momentum: momentum is for `kind: sgd`"},
    {TASK SPACE "supernet: {optimizer: {lr: -1}}\n", "supernet.optimizer.lr: -1 is out of range"},
    {TASK SPACE "supernet: {schedule: {kind: cosine, factor: 0.5}}\n",
     "supernet.schedule.factor: factor is for `kind: step`"},
    {TASK SPACE "supernet: {epochs: 2, schedule: {warmup_epochs: 3}}\n",
     "supernet.schedule.warmup_epochs: 3 is out of range, 0 to 2 is allowed"},
    {TASK SPACE "search: {algorithm: nsga3}\n",
     "search.yaml:3:21: search.algorithm: \"nsga3\" is not known, did you mean \"nsga2\"?"},
    {TASK SPACE "search: {evaluations: 0}\n", "search.evaluations: 0 is"},
    {TASK SPACE "search: {population: 10, sample: 11}\n", "search.sample: 11 is out of range, 1 to 10 is allowed"},
    {TASK SPACE "search: {mutation: 2}\n", "search.mutation: 2 is out of range"},
    {TASK SPACE "objectives: [accuracy: up]\n", "objectives[0].accuracy: \"up\" is not"},
    {TASK SPACE "objectives: [accurracy: max]\n", "did you mean \"accuracy\"?"},
    {TASK SPACE "objectives: [macs: min, macs: max]\n", "macs is there twice"},
    {TASK SPACE "objectives: []\n", "expected a list of 1 to 4 objectives"},
    {TASK SPACE "constraints: {params: {max: 1, min: 2}}\n", "constraints.params: min is above max"},
    {TASK SPACE "constraints: {params: 500k}\n", "constraints.params: this is a single value"},
    {TASK SPACE "constraints: {parameters: {max: 1}}\n", "constraints.parameters: unknown field"},
    {TASK SPACE "constraints: {latency_ms: {max: 1}}\n",
     "latency_ms is measured, so it can be limited only when it is one of the objectives"},
    {TASK SPACE "finish: {retrain: all}\n", "finish.retrain: \"all\" is not"},
    {TASK SPACE "finish: {export: [torch]}\n", "finish.export[0]: \"torch\" is not"},
    {TASK SPACE "resources: {gpu: 1}\n",
     "search.yaml:3:13: resources.gpu: unknown field \"gpu\", did you mean \"gpus\"?"},
    {TASK SPACE "name: a\nname: b\n", "search.yaml:4:1"},
    {TASK "space: [1\n", "search.yaml:3:"},
};

START_TEST(bad_input)
    {
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            sn_search_file *f;
            char line[700];
            es_status s = parse(bad[i].text, "/place", &f, line);
            ck_assert_msg(s != ES_OK && f == NULL, "accepted: %s", bad[i].text);
            ck_assert_msg(strstr(line, bad[i].message) != NULL && strncmp(line, "search.yaml", 11) == 0,
                          "%s gives \"%s\", not \"%s\"", bad[i].text, line, bad[i].message);
        }
    }
END_TEST

START_TEST(text_survives_every_scalar)
    {
        sn_search_file *f = good("name: \"a: \\\"b\\\" # c, [d] {e} \\\\ 'x'\"\ntask: {data: {train: \"dir with "
                                 "space/x, y,\\u00e9\", validation: 1}}\n" SPACE,
                                 "/r"),
                       *g;
        g = good(f->text, NULL);
        ck_assert_str_eq(f->name, "a: \"b\" # c, [d] {e} \\ 'x'");
        ck_assert_str_eq(f->name, g->name);
        ck_assert_str_eq(f->data.train, "/r/dir with space/x,/r/y,/r/\xc3\xa9");
        ck_assert_str_eq(f->data.train, g->data.train);
        ck_assert_str_eq(f->text, g->text);
        sn_search_file_destroy(&f);
        sn_search_file_destroy(&g);
    }
END_TEST

ES_TEST_MAIN("searchfile", every_field, defaults, space_of_a_file, problem, infeasible, bad_input,
             text_survives_every_scalar)
