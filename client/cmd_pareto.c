/* pareto, export: the front of a search, and its members' weights. */
#include "client/results.h"

#include "base/file.h"
#include "client/table.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* A search that is over answers with its result. */
static const json_t *front_of(const json_t *answer)
{
    const json_t *result = json_object_get(answer, "result");
    return json_object_get(result ? result : answer, "front");
}

static void print_front(const json_t *answer) { cl_front_print(front_of(answer), stdout); }

static void print_csv(const json_t *answer)
{
    es_str out = ES_STR_INIT;
    cl_front_csv(front_of(answer), &out);
    fputs(out.p, stdout);
    es_str_free(&out);
}

static int run_pareto(const cl_args *a)
{
    uint64_t id = 0;
    if (!cl_search_id(a, 0, &id))
        return CL_USAGE;
    return cl_ask_and_print(a, &(cl_ask){.what = "pareto", .search = id},
                            cl_flag(a, "--csv") ? print_csv : print_front);
}

/* The knee: the member farthest from the line between the front's ends, in (macs, accuracy) scaled to 0..1. */
static size_t knee(const json_t *front)
{
    size_t n = json_array_size(front), best = 0;
    double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY}, farthest = -INFINITY;
    static const char *const axis[2] = {"macs", "accuracy"};
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < 2; k++) {
            double v = cl_num(json_array_get(front, i), axis[k]);
            low[k] = v < low[k] ? v : low[k];
            high[k] = v > high[k] ? v : high[k];
        }
    }
    for (size_t i = 0; i < n; i++) {
        double at[2];
        for (int k = 0; k < 2; k++)
            at[k] = high[k] > low[k] ? (cl_num(json_array_get(front, i), axis[k]) - low[k]) / (high[k] - low[k]) : 0;
        if (at[1] - at[0] > farthest) {
            farthest = at[1] - at[0];
            best = i;
        }
    }
    return best;
}

/* -1: no such member. */
static int64_t pick_member(const json_t *front, const char *pick)
{
    size_t n = json_array_size(front), best = 0;
    int64_t number;
    if (n == 0)
        return -1;
    if (!strcmp(pick, "knee"))
        return (int64_t)knee(front);
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(cl_text(json_array_get(front, i), "architecture"), pick))
            return (int64_t)i;
        if (cl_num(json_array_get(front, i), "accuracy") > cl_num(json_array_get(front, best), "accuracy"))
            best = i;
    }
    if (!strcmp(pick, "best"))
        return (int64_t)best;
    return es_str_to_i64(pick, false, &number) && number >= 1 && (size_t)number <= n ? number - 1 : -1;
}

static es_status export_one(dm_peer *data, const json_t *front, const char *pick, const char *out, es_error *err)
{
    int64_t i = pick_member(front, pick);
    if (i < 0)
        return es_fail(err, ES_NOT_FOUND, "--pick",
                       "\"%s\" is none of knee, best, all, 1 to %zu, or a member's architecture", pick,
                       json_array_size(front));
    const json_t *m = json_array_get(front, (size_t)i);
    if (!cl_text(m, "weights")[0])
        return es_fail(err, ES_NOT_FOUND, cl_text(m, "architecture"),
                       "this member has no weights (a search against a table trains none)");
    ES_RETURN(cl_weights_write(data, cl_text(m, "weights"), out, NULL, NULL, err));
    printf("%s: %s\n", out, cl_text(m, "architecture"));
    return ES_OK;
}

static int run_export(const cl_args *a)
{
    es_error err = {0};
    es_status s = ES_OK;
    dm_peer *p = NULL, *data = NULL;
    json_t *result = NULL;
    uint64_t id = 0;
    const char *pick = cl_value(a, "--pick"), *format = cl_value(a, "--format"), *out = cl_value(a, "--out");
    if (!cl_search_id(a, 0, &id))
        return CL_USAGE;
    if (format && strcmp(format, "safetensors") != 0)
        return cl_usage(a, "--format is \"%s\", this build writes safetensors", format);
    bool all = pick && !strcmp(pick, "all");
    ES_GOTO(cl_connect(a, &p, &err));
    ES_GOTO(cl_query(p, &(cl_ask){.what = "result", .search = id}, &result, &err));
    ES_GOTO(cl_connect_data(p, &data, &err));
    if (all) {
        ES_GOTO(es_file_mkdirs(out ? out : ".", &err));
        ES_GOTO(cl_results_write(out ? out : ".", result, data, NULL, NULL, &err));
        printf("%s: result.json, pareto.csv and %zu members in front/\n", out ? out : ".",
               json_array_size(json_object_get(result, "front")));
    } else {
        ES_GOTO(export_one(data, json_object_get(result, "front"), pick ? pick : "knee",
                           out ? out : "weights.safetensors", &err));
    }
fail:
    json_decref(result);
    dm_peer_close(&data);
    dm_peer_close(&p);
    return s == ES_OK ? CL_OK : cl_fail(&err);
}

static const cl_option pareto_options[] = {{"--csv", NULL, "print CSV"}, CL_JSON, CL_ENDPOINT, CL_END};
const cl_command cl_cmd_pareto = {
    "pareto", "SEARCH", "print the Pareto front of what is evaluated so far", 1, 1, run_pareto, pareto_options, NULL};

static const cl_option export_options[] = {
    {"--pick", "MEMBER", "knee (default), best, all, a number of the front, or an architecture"},
    {"--out", "PATH", "the file (default weights.safetensors), or the directory with --pick all"},
    {"--format", "FORMAT", "safetensors"},
    CL_ENDPOINT,
    CL_END,
};
const cl_command cl_cmd_export = {
    "export",       "SEARCH", "write the weights of members of a finished search's front", 1, 1, run_export,
    export_options, NULL};
