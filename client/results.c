#include "client/results.h"

#include "base/file.h"
#include "base/json.h"
#include "client/table.h"
#include "daemon/wire/transfer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void cell_number(cl_table *t, const json_t *m, const char *key, const char *fmt, double scale)
{
    char text[64];
    snprintf(text, sizeof text, strcmp(fmt, "%") == 0 ? "%.2f %%" : "%.3f", cl_num(m, key) * scale);
    cl_table_cell(t, "%s", cl_null(m, key) ? "-" : text);
}

/* Of a language model. */
static bool has_bits(const json_t *front)
{
    return json_object_get(json_array_get(front, 0), "bits_per_character") != NULL;
}

void cl_front_print(const json_t *front, FILE *f)
{
    cl_table t;
    if (has_bits(front))
        cl_table_begin(&t, "#>", "bits/char>", "test bits/char>", "accuracy>", "test accuracy>", "params>", "macs>",
                       "latency ms>", "architecture", NULL);
    else
        cl_table_begin(&t, "#>", "accuracy>", "test accuracy>", "params>", "macs>", "latency ms>", "architecture",
                       NULL);
    size_t i;
    const json_t *m;
    json_array_foreach(front, i, m)
    {
        char n[32];
        cl_table_cell(&t, "%zu", i + 1);
        if (has_bits(front)) {
            cell_number(&t, m, "bits_per_character", "f", 1);
            cell_number(&t, m, "test_bits_per_character", "f", 1);
        }
        cell_number(&t, m, "accuracy", "%", 100);
        cell_number(&t, m, "test_accuracy", "%", 100);
        cl_table_cell(&t, "%s", cl_count(cl_int(m, "params"), n));
        cl_table_cell(&t, "%s", cl_count(cl_int(m, "macs"), n));
        cell_number(&t, m, "latency_ms", "f", 1);
        cl_table_cell(&t, "%s", cl_text(m, "architecture"));
    }
    cl_table_end(&t, f);
}

static void csv_text(es_str *out, const char *text)
{
    if (!strpbrk(text, ",\"\n")) {
        es_str_add(out, text);
        return;
    }
    es_str_add(out, "\"");
    for (; *text; text++)
        es_str_addn(out, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1);
    es_str_add(out, "\"");
}

static const char *const numbers[] = {
    "accuracy",           "test_accuracy",          "params", "macs", "latency_ms", "activation_bytes",
    "bits_per_character", "test_bits_per_character"};
enum { NUMBERS = sizeof numbers / sizeof numbers[0] };

void cl_front_csv(const json_t *front, es_str *out)
{
    const int columns = has_bits(front) ? NUMBERS : NUMBERS - 2;
    es_str_add(out, "architecture");
    for (int k = 0; k < columns; k++)
        es_str_addf(out, ",%s", numbers[k]);
    es_str_add(out, "\n");
    size_t i;
    const json_t *m;
    json_array_foreach(front, i, m)
    {
        csv_text(out, cl_text(m, "architecture"));
        for (int k = 0; k < columns; k++) {
            char n[32];
            es_str_add(out, ",");
            if (json_is_integer(json_object_get(m, numbers[k])))
                es_str_addf(out, "%" PRId64, cl_int(m, numbers[k]));
            else if (!cl_null(m, numbers[k]))
                es_str_add(out, es_str_double(cl_num(m, numbers[k]), n));
        }
        es_str_add(out, "\n");
    }
}

/* Copies a JSON value as it is: integers stay integers. */
static void copy(es_json *j, const char *key, const json_t *v)
{
    const char *name;
    size_t i;
    json_t *inner;
    const json_t *item;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        es_json_object(j, key);
        json_object_foreach((json_t *)(uintptr_t)v, name, inner) copy(j, name, inner);
        es_json_end(j);
        return;
    case JSON_ARRAY:
        es_json_array(j, key);
        json_array_foreach(v, i, item) copy(j, NULL, item);
        es_json_end(j);
        return;
    case JSON_STRING: es_json_str(j, key, json_string_value(v)); return;
    case JSON_INTEGER: es_json_i64(j, key, json_integer_value(v)); return;
    case JSON_REAL: es_json_f64(j, key, json_real_value(v)); return;
    case JSON_TRUE: es_json_bool(j, key, true); return;
    case JSON_FALSE: es_json_bool(j, key, false); return;
    case JSON_NULL: es_json_str(j, key, NULL); return;
    }
}

static void member_text(es_json *j, const json_t *m, size_t number)
{
    char path[64];
    const char *key;
    json_t *v;
    snprintf(path, sizeof path, "front/%02zu/weights.safetensors", number);
    es_json_object(j, NULL);
    json_object_foreach((json_t *)(uintptr_t)m, key, v)
    {
        if (!strcmp(key, "weights")) /* a version of the store; at home it is a file */
            es_json_str(j, key, json_is_string(v) ? path : NULL);
        else
            copy(j, key, v);
    }
    es_json_end(j);
}

/* The result as it came, in its order, with the members' weights by file. */
static char *result_text(const json_t *result)
{
    es_json j;
    const char *key;
    json_t *v;
    size_t i;
    const json_t *m;
    es_json_begin(&j, 2);
    es_json_object(&j, NULL);
    json_object_foreach((json_t *)(uintptr_t)result, key, v)
    {
        if (strcmp(key, "front") != 0) {
            copy(&j, key, v);
            continue;
        }
        es_json_array(&j, "front");
        json_array_foreach(v, i, m) member_text(&j, m, i + 1);
        es_json_end(&j);
    }
    es_json_end(&j);
    return es_json_finish(&j);
}

es_status cl_weights_write(dm_peer *data, const char *version, const char *path, bool (*stop)(void *ctx), void *ctx,
                           es_error *err)
{
    sn_version *v = NULL;
    ES_RETURN(
        dm_weights_get(data, version, &(dm_transfer_options){.timeout_ms = 60000, .stop = stop, .ctx = ctx}, &v, err));
    es_status s = sn_version_write_safetensors(v, path, err);
    sn_version_destroy(&v);
    return s;
}

static es_status write_member(const char *dir, size_t number, const json_t *m, dm_peer *data, bool (*stop)(void *ctx),
                              void *ctx, es_error *err)
{
    es_str path = ES_STR_INIT, text = ES_STR_INIT;
    es_status s = ES_OK;
    es_str_addf(&path, "%s/front/%02zu", dir, number);
    size_t base = path.len;
    ES_GOTO(es_file_mkdirs(path.p, err));
    es_str_addf(&text, "%s\n", cl_text(m, "architecture"));
    es_str_add(&path, "/architecture.txt");
    ES_GOTO(es_file_write(path.p, text.p, text.len, err));
    path.len = base;
    path.p[base] = 0;
    es_str_add(&path, "/weights.safetensors");
    if (cl_text(m, "weights")[0])
        ES_GOTO(cl_weights_write(data, cl_text(m, "weights"), path.p, stop, ctx, err));
fail:
    es_str_free(&path);
    es_str_free(&text);
    return s;
}

es_status cl_results_write(const char *dir, const json_t *result, dm_peer *data, bool (*stop)(void *ctx), void *ctx,
                           es_error *err)
{
    es_str path = ES_STR_INIT, csv = ES_STR_INIT;
    es_status s = ES_OK;
    char *text = NULL;
    const json_t *front = json_object_get(result, "front"), *m;
    size_t i;
    es_str_addf(&path, "%s/front", dir);
    ES_GOTO(es_file_remove_tree(path.p, err)); /* of an earlier search: its members are not ours */
    json_array_foreach(front, i, m) ES_GOTO(write_member(dir, i + 1, m, data, stop, ctx, err));
    cl_front_csv(front, &csv);
    es_str_clear(&path);
    es_str_addf(&path, "%s/pareto.csv", dir);
    ES_GOTO(es_file_write(path.p, csv.p, csv.len, err));
    /* Last: where it stands, everything it names is there. */
    text = result_text(result);
    es_str_clear(&path);
    es_str_addf(&path, "%s/result.json", dir);
    ES_GOTO(es_file_write(path.p, text, strlen(text), err));
fail:
    free(text);
    es_str_free(&path);
    es_str_free(&csv);
    return s;
}
