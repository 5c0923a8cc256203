#include "supernet/searchfile/searchfile.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "supernet/searchfile/internal.h"

static const char *const measure_names[SN_MEASURES + 1] = {
    "accuracy", "params", "macs", "activation_bytes", "latency_ms", "bits_per_character", NULL};
const char *sn_measure_name(sn_measure m) { return measure_names[m]; }
bool sn_measure_known(sn_measure m)
{
    return m == SN_MEASURE_PARAMS || m == SN_MEASURE_MACS || m == SN_MEASURE_ACTIVATION_BYTES;
}

/* Reading: what the file gives, and what of it the normalised text shows otherwise. */
typedef struct reading {
    sn_search_file *f;
    const char *base_dir; /* NULL: paths stay as they are */
    es_yaml *space_doc;
    sn_replaced replaced[SN_REPLACED_MAX];
    int count;
} reading;

static es_status copy_text(const es_yaml_node *n, char *out, size_t size, es_error *err)
{
    const char *t;
    ES_RETURN(es_yaml_str(n, &t, err));
    if (strlen(t) >= size)
        return es_yaml_fail(n, err, "%zu letters; allowed: at most %zu", strlen(t), size - 1);
    snprintf(out, size, "%s", t);
    return ES_OK;
}

static es_status get_text(const es_yaml_node *map, const char *key, char *out, size_t size, es_error *err)
{
    const es_yaml_node *n = es_yaml_find(map, key);
    return n ? copy_text(n, out, size, err) : ES_OK;
}

/* A path, or several joined by commas, made absolute. */
static es_status get_path(reading *r, const es_yaml_node *map, const char *key, char out[SN_PATH_MAX], es_error *err)
{
    const es_yaml_node *n = es_yaml_find(map, key);
    const char *t;
    if (!n)
        return ES_OK;
    ES_RETURN(es_yaml_str(n, &t, err));
    es_str all = ES_STR_INIT;
    for (const char *p = t; p;) {
        size_t len = strcspn(p, ",");
        while (len > 0 && *p == ' ') {
            p++;
            len--;
        }
        if (len == 0) {
            es_str_free(&all);
            return es_yaml_fail(n, err, "an empty path; allowed: a path, or several joined by commas");
        }
        es_str_addf(&all, "%s%s%s%.*s", all.len ? "," : "", *p != '/' && r->base_dir ? r->base_dir : "",
                    *p != '/' && r->base_dir ? "/" : "", (int)len, p);
        p = p[len] ? p + len + 1 : NULL;
    }
    bool fits = all.len < SN_PATH_MAX;
    if (fits)
        snprintf(out, SN_PATH_MAX, "%s", all.p);
    es_str_free(&all);
    if (!fits)
        return es_yaml_fail(n, err, "the absolute path is too long; allowed: at most %d letters", SN_PATH_MAX - 1);
    ES_ASSERT(r->count < SN_REPLACED_MAX);
    r->replaced[r->count++] = (sn_replaced){.node = n, .text = out};
    return ES_OK;
}

static es_status read_data(reading *r, const es_yaml_node *task, es_error *err)
{
    static const char *const keys[] = {"format", "train", "test", "validation", "limit", NULL};
    static const char *const formats[] = {"idx", "cifar", "npy", "csv", NULL};
    sn_data_config *d = &r->f->data;
    const es_yaml_node *n = es_yaml_find(task, "data");
    int format = SN_DATA_IDX;
    if (!n)
        return es_yaml_fail(task, err, "`data` is missing: {format: idx, cifar, npy or csv, train: PATH, test: PATH}");
    ES_RETURN(es_yaml_check_keys(n, keys, err));
    ES_RETURN(es_yaml_get_enum(n, "format", formats, &format, err));
    d->format = (sn_data_format)format;
    if (!es_yaml_find(n, "train"))
        return es_yaml_fail(n, err, "`train` is missing: where the training samples are");
    ES_RETURN(get_path(r, n, "train", d->train, err));
    ES_RETURN(get_path(r, n, "test", d->test, err));
    ES_RETURN(es_yaml_get_i64(n, "validation", 0, 1000000000, &d->validation, err));
    return es_yaml_get_i64(n, "limit", 0, 1000000000, &d->limit, err);
}

/* A number of tokens at the end of the training file, or a file. */
static es_status read_token_validation(reading *r, const es_yaml_node *n, sn_data_config *d, es_error *err)
{
    const es_yaml_node *v = es_yaml_find(n, "validation");
    d->validation = -1;
    if (v && v->kind == ES_YAML_SCALAR && !v->quoted && v->text[strspn(v->text, "0123456789_kMG.")] == 0)
        return es_yaml_get_i64(n, "validation", 0, INT64_MAX, &d->validation, err);
    return get_path(r, n, "validation", d->validation_file, err);
}

static es_status read_token_data(reading *r, const es_yaml_node *task, es_error *err)
{
    static const char *const keys[] = {"format", "type", "train", "validation", "test", "limit", NULL};
    static const char *const formats[] = {"text", "tokens", NULL}, *const types[] = {"uint8", "uint16", "uint32", NULL};
    sn_data_config *d = &r->f->data;
    const es_yaml_node *n = es_yaml_find(task, "data"), *type;
    int format = 0, item = 1;
    if (!n)
        return es_yaml_fail(task, err, "`data` is missing: {format: text or tokens, train: PATH, test: PATH}");
    ES_RETURN(es_yaml_check_keys(n, keys, err));
    ES_RETURN(es_yaml_get_enum(n, "format", formats, &format, err));
    ES_RETURN(es_yaml_get_enum(n, "type", types, &item, err));
    d->format = format ? SN_DATA_TOKENS : SN_DATA_TEXT;
    d->token_bytes = 1 << item;
    if ((type = es_yaml_find(n, "type")) && !format)
        return es_yaml_fail(type, err, "a text has bytes; `type` is for files of token ids (format: tokens)");
    if (!es_yaml_find(n, "train"))
        return es_yaml_fail(n, err, "`train` is missing: where the training text is");
    ES_RETURN(get_path(r, n, "train", d->train, err));
    ES_RETURN(get_path(r, n, "test", d->test, err));
    ES_RETURN(read_token_validation(r, n, d, err));
    return es_yaml_get_i64(n, "limit", 0, INT64_MAX, &d->limit, err);
}

static es_status read_augment(const es_yaml_node *n, sn_augment_config *a, es_error *err)
{
    static const char *const keys[] = {"pad_crop", "flip", "cutout", "normalise", NULL};
    if (!n)
        return ES_OK;
    ES_RETURN(es_yaml_check_keys(n, keys, err));
    ES_RETURN(sn_searchfile_int(n, "pad_crop", 0, 256, &a->pad_crop, err));
    ES_RETURN(sn_searchfile_int(n, "cutout", 0, 1024, &a->cutout, err));
    ES_RETURN(es_yaml_get_bool(n, "flip", &a->flip, err));
    return es_yaml_get_bool(n, "normalise", &a->normalise, err);
}

static es_status read_task(reading *r, const es_yaml_node *root, es_error *err)
{
    static const char *const kinds[] = {"image-classification", "table", "language-model", NULL};
    static const char *const image_keys[] = {"kind", "data", "augment", NULL};
    static const char *const token_keys[] = {"kind", "data", "context", NULL};
    static const char *const table_keys[] = {"kind", "file", "architecture", "value", "report", NULL};
    const es_yaml_node *n = es_yaml_find(root, "task");
    sn_table_config *t = &r->f->table;
    int kind = SN_TASK_IMAGES;
    if (!n)
        return es_yaml_fail(root, err,
                            "`task` is missing: what is to be learned, as {kind: image-classification, data: {...}}");
    ES_RETURN(es_yaml_expect(n, ES_YAML_MAP, err));
    ES_RETURN(es_yaml_get_enum(n, "kind", kinds, &kind, err));
    r->f->task = (sn_task_kind)kind;
    ES_RETURN(es_yaml_check_keys(n,
                                 r->f->task == SN_TASK_TABLE      ? table_keys
                                 : r->f->task == SN_TASK_LANGUAGE ? token_keys
                                                                  : image_keys,
                                 err));
    if (r->f->task == SN_TASK_LANGUAGE)
        return read_token_data(r, n, err);
    if (r->f->task == SN_TASK_IMAGES) {
        ES_RETURN(read_data(r, n, err));
        return read_augment(es_yaml_find(n, "augment"), &r->f->augment, err);
    }
    if (!es_yaml_find(n, "file") || !es_yaml_find(n, "value"))
        return es_yaml_fail(n, err, "`%s` is missing; a table needs `file` and `value`, the column of accuracies",
                            es_yaml_find(n, "file") ? "value" : "file");
    ES_RETURN(get_path(r, n, "file", t->file, err));
    ES_RETURN(get_text(n, "architecture", t->key, sizeof t->key, err));
    ES_RETURN(get_text(n, "value", t->value, sizeof t->value, err));
    snprintf(t->report, sizeof t->report, "%s", t->value);
    return get_text(n, "report", t->report, sizeof t->report, err);
}

/* A map, or the name of a file that has one; the normalised text then has the space itself. */
static es_status read_space(reading *r, const es_yaml_node *root, es_error *err)
{
    const es_yaml_node *n = es_yaml_find(root, "space");
    if (!n)
        return es_yaml_fail(root, err, "`space` is missing: the candidates, as a map or the name of a file with one");
    if (n->kind != ES_YAML_SCALAR)
        return sn_space_read(n, &r->f->space, err);
    char path[2 * SN_PATH_MAX];
    const char *name;
    ES_RETURN(es_yaml_str(n, &name, err));
    snprintf(path, sizeof path, "%s%s%s", name[0] != '/' && r->base_dir ? r->base_dir : "",
             name[0] != '/' && r->base_dir ? "/" : "", name);
    if (!es_file_exists(path))
        return es_yaml_fail(n, err, "there is no file %s", path);
    ES_RETURN(es_yaml_read(path, &r->space_doc, err));
    const es_yaml_node *inner = es_yaml_root(r->space_doc), *space = es_yaml_find(inner, "space");
    r->replaced[r->count++] = (sn_replaced){.node = n, .tree = space ? space : inner};
    return sn_space_read(space ? space : inner, &r->f->space, err);
}

static es_status read_search(const es_yaml_node *root, sn_search_file *f, es_error *err)
{
    static const char *const keys[] = {"algorithm", "evaluations", "validation",    "population", "sample",
                                       "mutation",  "crossover",   "restarts_from", NULL};
    const es_yaml_node *n = es_yaml_find(root, "search");
    int algorithm = -1;
    snprintf(f->algorithm, sizeof f->algorithm, "nsga2");
    if (n) {
        ES_RETURN(es_yaml_check_keys(n, keys, err));
        ES_RETURN(es_yaml_get_enum(n, "algorithm", sr_algorithm_names(), &algorithm, err));
    }
    if (algorithm >= 0)
        snprintf(f->algorithm, sizeof f->algorithm, "%s", sr_algorithm_names()[algorithm]);
    f->options = sr_options_default(f->algorithm);
    if (!n)
        return ES_OK;
    ES_RETURN(es_yaml_get_i64(n, "evaluations", 1, 100000000, &f->evaluations, err));
    ES_RETURN(es_yaml_get_i64(n, "validation", 0, 1000000000, &f->validation_limit, err));
    ES_RETURN(sn_searchfile_int(n, "population", 2, 100000, &f->options.population, err));
    if (f->options.sample > f->options.population)
        f->options.sample = f->options.population;
    ES_RETURN(sn_searchfile_int(n, "sample", 1, f->options.population, &f->options.sample, err));
    ES_RETURN(es_yaml_get_f64(n, "mutation", 0, 1, &f->options.mutation, err));
    ES_RETURN(es_yaml_get_f64(n, "crossover", 0, 1, &f->options.crossover, err));
    return sn_searchfile_int(n, "restarts_from", 1, 100000, &f->options.restarts_from, err);
}

/* The i-th of [accuracy: max, ...], [accuracy, ...] or {accuracy: max, ...}. */
static es_status read_objective(const es_yaml_node *n, size_t i, sn_objective *out, es_error *err)
{
    static const char *const directions[] = {"min", "max", NULL};
    const es_yaml_node *item = n->items[i], *map = n->kind == ES_YAML_MAP ? n : item;
    int m = 0, up = 0;
    if (n->kind != ES_YAML_MAP && (item->kind != ES_YAML_MAP || item->count != 1)) { /* a name alone */
        ES_RETURN(es_yaml_enum(item, measure_names, &m, err));
        *out = (sn_objective){(sn_measure)m, m == SN_MEASURE_ACCURACY};
        return ES_OK;
    }
    size_t at = map == n ? i : 0;
    ES_RETURN(es_yaml_check_keys(map, measure_names, err));
    while (strcmp(measure_names[m], map->keys[at]) != 0)
        m++;
    ES_RETURN(es_yaml_enum(map->items[at], directions, &up, err));
    *out = (sn_objective){(sn_measure)m, up};
    return ES_OK;
}

static es_status read_objectives(const es_yaml_node *root, sn_search_file *f, es_error *err)
{
    const es_yaml_node *n = es_yaml_find(root, "objectives");
    f->objectives = 2;
    f->objective[0] = f->task == SN_TASK_LANGUAGE ? (sn_objective){SN_MEASURE_BITS, false}
                                                  : (sn_objective){SN_MEASURE_ACCURACY, true};
    f->objective[1] = (sn_objective){SN_MEASURE_MACS, false};
    if (!n)
        return ES_OK;
    if (n->kind == ES_YAML_SCALAR || n->count < 1 || n->count > SN_OBJECTIVES_MAX)
        return es_yaml_fail(n, err, "expected a list of 1 to %d objectives, as [accuracy: max, macs: min]",
                            SN_OBJECTIVES_MAX);
    f->objectives = (int)n->count;
    for (size_t i = 0; i < n->count; i++) {
        sn_objective *o = &f->objective[i];
        ES_RETURN(read_objective(n, i, o, err));
        for (size_t j = 0; j < i; j++)
            if (f->objective[j].measure == o->measure)
                return es_yaml_fail(n->items[i], err, "%s is there twice", measure_names[o->measure]);
        if (f->task == SN_TASK_TABLE && o->measure == SN_MEASURE_LATENCY_MS)
            return es_yaml_fail(n->items[i], err, "latency cannot be measured in a search of a table");
        if (f->task != SN_TASK_LANGUAGE && o->measure == SN_MEASURE_BITS)
            return es_yaml_fail(n->items[i], err, "bits per character are of a language-model task");
    }
    return ES_OK;
}

static es_status read_constraints(const es_yaml_node *root, sn_search_file *f, es_error *err)
{
    static const char *const keys[] = {"min", "max", NULL};
    const es_yaml_node *n = es_yaml_find(root, "constraints");
    if (!n)
        return ES_OK;
    ES_RETURN(es_yaml_check_keys(n, measure_names, err));
    for (size_t i = 0; i < n->count; i++) {
        const es_yaml_node *c = n->items[i];
        sn_limit *l = &f->limit[f->limits++];
        int m = 0;
        bool measured = false;
        while (strcmp(measure_names[m], n->keys[i]) != 0)
            m++;
        *l = (sn_limit){(sn_measure)m, -INFINITY, INFINITY};
        ES_RETURN(es_yaml_check_keys(c, keys, err));
        if (c->count == 0)
            return es_yaml_fail(c, err, "expected {min: ..., max: ...} or one of them");
        ES_RETURN(es_yaml_get_f64(c, "min", -1e18, 1e18, &l->min, err));
        ES_RETURN(es_yaml_get_f64(c, "max", -1e18, 1e18, &l->max, err));
        if (l->min > l->max)
            return es_yaml_fail(c, err, "min is above max");
        for (int k = 0; k < f->objectives; k++)
            measured |= f->objective[k].measure == l->measure;
        if (!sn_measure_known(l->measure) && !measured)
            return es_yaml_fail(c, err, "%s is measured, so it can be limited only when it is one of the objectives",
                                measure_names[m]);
    }
    return ES_OK;
}

static es_status read_rest(const es_yaml_node *root, sn_search_file *f, es_error *err)
{
    static const char *const finish_keys[] = {"retrain", "export", NULL}, *const retrains[] = {"none", NULL};
    static const char *const exports[] = {"safetensors", "onnx", NULL}, *const resource_keys[] = {"priority", "gpus",
                                                                                                  NULL};
    const es_yaml_node *finish = es_yaml_find(root, "finish"), *resources = es_yaml_find(root, "resources"), *list;
    int k = 0;
    if (finish) {
        ES_RETURN(es_yaml_check_keys(finish, finish_keys, err));
        ES_RETURN(es_yaml_get_enum(finish, "retrain", retrains, &k, err));
    }
    f->export_safetensors = true;
    if ((list = es_yaml_find(finish, "export"))) {
        ES_RETURN(es_yaml_expect(list, ES_YAML_LIST, err));
        f->export_safetensors = false;
        for (size_t i = 0; i < list->count; i++) {
            ES_RETURN(es_yaml_enum(list->items[i], exports, &k, err));
            f->export_safetensors |= k == 0;
            f->export_onnx |= k == 1;
        }
    }
    if (!resources)
        return ES_OK;
    ES_RETURN(es_yaml_check_keys(resources, resource_keys, err));
    ES_RETURN(sn_searchfile_int(resources, "priority", -1000, 1000, &f->priority, err));
    return sn_searchfile_int(resources, "gpus", 0, 1024, &f->gpus, err);
}

static es_status read_name(const es_yaml_node *root, sn_search_file *f, es_error *err)
{
    int64_t seed = 1;
    const es_yaml_node *n = es_yaml_find(root, "name");
    snprintf(f->name, sizeof f->name, "search");
    ES_RETURN(get_text(root, "name", f->name, sizeof f->name, err));
    for (const char *p = f->name; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == '/')
            return es_yaml_fail(n, err, "a name has no '/' and no control characters");
    ES_RETURN(es_yaml_get_i64(root, "seed", 0, INT64_MAX, &seed, err));
    f->seed = (uint64_t)seed;
    return ES_OK;
}

/* The space reads what the task has. */
static es_status check_task_space(const es_yaml_node *root, const sn_search_file *f, es_error *err)
{
    const es_yaml_node *space = es_yaml_find(root, "space"),
                       *context = es_yaml_find(es_yaml_find(root, "task"), "context");
    bool tokens = sn_space_tokens(f->space);
    int64_t n;
    if (f->task == SN_TASK_LANGUAGE && !tokens)
        return es_yaml_fail(
            space, err,
            "the task has tokens, but the space's input is images: {tokens: ..., vocabulary: ...} is needed");
    if (f->task == SN_TASK_IMAGES && tokens)
        return es_yaml_fail(space, err,
                            "the task has images, but the space's input is tokens: is the task a language-model?");
    if (!context)
        return ES_OK;
    ES_RETURN(es_yaml_i64(context, 1, 65536, &n, err));
    if (n != sn_space_positions(f->space))
        return es_yaml_fail(context, err, "the space reads windows of %d tokens; allowed: %d, or no `context`",
                            sn_space_positions(f->space), sn_space_positions(f->space));
    return ES_OK;
}

static es_status read_root(reading *r, const es_yaml_node *root, es_error *err)
{
    static const char *const keys[] = {"name",       "seed",        "task",   "space",     "supernet", "search",
                                       "objectives", "constraints", "finish", "resources", NULL};
    sn_search_file *f = r->f;
    ES_RETURN(es_yaml_check_keys(root, keys, err));
    ES_RETURN(read_name(root, f, err));
    ES_RETURN(read_task(r, root, err));
    ES_RETURN(read_space(r, root, err));
    ES_RETURN(check_task_space(root, f, err));
    const es_yaml_node *supernet = es_yaml_find(root, "supernet");
    if (supernet && f->task == SN_TASK_TABLE)
        return es_yaml_fail(supernet, err, "a search of a table trains nothing: leave `supernet` out");
    if (supernet)
        ES_RETURN(sn_searchfile_read_supernet(supernet, &f->supernet, err));
    if (f->task == SN_TASK_LANGUAGE && !es_yaml_find(supernet, "distill"))
        f->supernet.distill =
            SN_DISTILL_NONE; /* soft targets seem to hold it back at the start: docs/measurements.md */
    ES_RETURN(read_search(root, f, err));
    ES_RETURN(read_objectives(root, f, err));
    ES_RETURN(read_constraints(root, f, err));
    ES_RETURN(read_rest(root, f, err));
    if (f->task != SN_TASK_TABLE && f->gpus > 1 && f->supernet.batch % f->gpus != 0)
        return es_yaml_fail(es_yaml_find(es_yaml_find(root, "resources"), "gpus"), err,
                            "%d ranks cannot share a batch of %d evenly; allowed: a divisor of supernet.batch", f->gpus,
                            f->supernet.batch);
    for (int i = 0; i < f->objectives; i++)
        if (f->task != SN_TASK_TABLE && f->data.validation == 0 && !f->data.validation_file[0] &&
            (f->objective[i].measure == SN_MEASURE_ACCURACY || f->objective[i].measure == SN_MEASURE_BITS))
            return es_yaml_fail(es_yaml_find(es_yaml_find(es_yaml_find(root, "task"), "data"), "validation"), err,
                                "0 samples are held out, but the objective `%s` needs some; allowed: at least 1",
                                measure_names[f->objective[i].measure]);
    return ES_OK;
}

es_status sn_search_file_parse(const char *name, const char *text, size_t n, const char *base_dir, sn_search_file **out,
                               es_error *err)
{
    es_yaml *doc = NULL;
    es_status s = ES_OK;
    reading r = {.base_dir = base_dir, .f = es_xcalloc(1, sizeof *r.f)};
    r.f->evaluations = 200;
    r.f->gpus = 1;
    r.f->data.validation = 5000;
    r.f->augment.normalise = true;
    snprintf(r.f->table.key, sizeof r.f->table.key, "architecture");
    sn_searchfile_supernet_defaults(&r.f->supernet);
    ES_GOTO(es_yaml_parse(name, text, n, &doc, err));
    ES_GOTO(read_root(&r, es_yaml_root(doc), err));
    r.f->text = sn_searchfile_text(es_yaml_root(doc), r.replaced, r.count);
fail:
    es_yaml_destroy(&doc);
    es_yaml_destroy(&r.space_doc);
    if (s != ES_OK)
        sn_search_file_destroy(&r.f);
    *out = r.f;
    return s;
}

es_status sn_search_file_load(const char *path, sn_search_file **out, es_error *err)
{
    enum { FILE_MAX = 1 << 20 };
    char *text = NULL, *full = NULL, *slash;
    size_t n = 0;
    es_status s = ES_OK;
    *out = NULL;
    ES_GOTO(es_file_read(path, FILE_MAX, &text, &n, err));
    full = realpath(path, NULL);
    if (!full) {
        s = es_fail_errno(err, path, "cannot find the folder of the file");
        goto fail;
    }
    slash = strrchr(full, '/');
    *slash = 0;
    ES_GOTO(sn_search_file_parse(path, text, n, full, out, err));
    ES_GOTO(es_at(err, sn_search_file_feasible(*out, err), path));
    if ((*out)->export_onnx)
        es_log(ES_LOG_WARN, "%s: finish.export: this version writes safetensors only, no onnx", path);
fail:
    free(full);
    free(text);
    if (s != ES_OK)
        sn_search_file_destroy(out);
    return s;
}

es_status sn_search_file_feasible(const sn_search_file *f, es_error *err)
{
    sr_problem p;
    sr_search *search = NULL;
    sr_arch *a = sr_arch_new(sn_space_choices(f->space));
    int64_t ticket;
    es_status s = ES_OK;
    sn_search_file_problem(f, &p);
    ES_GOTO(sr_search_new(f->algorithm, &f->options, &p, f->seed, &search, err));
    s = f->limits > 0 ? sr_ask(search, &ticket, a, err) : ES_OK;
    if (s != ES_OK && err && !err->where[0])
        es_at(err, s, "constraints");
fail:
    sr_search_destroy(&search);
    free(a);
    return s;
}

void sn_search_file_destroy(sn_search_file **f)
{
    if (!*f)
        return;
    sn_space_destroy(&(*f)->space);
    free((*f)->text);
    free(*f);
    *f = NULL;
}

static void known_costs(void *ctx, const sr_arch *a, double *out)
{
    const sn_search_file *f = ctx;
    sn_cost c;
    if (sn_space_cost(f->space, a, &c, NULL) != ES_OK) { /* cannot be built: worse than any */
        out[0] = out[1] = out[2] = INFINITY;
        return;
    }
    out[0] = (double)c.params;
    out[1] = (double)c.macs;
    out[2] = (double)c.activation_bytes;
}

void sn_search_file_problem(const sn_search_file *f, sr_problem *out)
{
    /* sr_problem.ctx is not const because a caller's costs may keep something; known_costs only reads. */
    union {
        const sn_search_file *in;
        void *out;
    } ctx = {.in = f};
    *out = (sr_problem){.space = sn_space_choices(f->space),
                        .objectives = f->objectives,
                        .costs = known_costs,
                        .n_costs = 3,
                        .ctx = ctx.out,
                        .evaluations = f->evaluations};
    for (int i = 0; i < f->objectives; i++) {
        out->maximise[i] = f->objective[i].maximise;
        out->names[i] = measure_names[f->objective[i].measure];
    }
    out->constraints = f->limits;
    for (int i = 0; i < f->limits; i++) {
        const sn_limit *l = &f->limit[i];
        sr_constraint *c = &out->constraint[i];
        *c = (sr_constraint){.min = l->min, .max = l->max};
        snprintf(c->name, sizeof c->name, "%s", measure_names[l->measure]);
        if (sn_measure_known(l->measure))
            c->cost = (int)l->measure - SN_MEASURE_PARAMS;
        for (int k = 0; k < f->objectives; k++)
            if (!sn_measure_known(l->measure) && f->objective[k].measure == l->measure)
                c->cost = -1 - k;
    }
}
