/* list, workers: one line each. */
#include "client/connect.h"
#include "client/table.h"

#include <inttypes.h>
#include <time.h>

static char *when(int64_t ms, char buf[32])
{
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    buf[0] = 0;
    if (ms && localtime_r(&t, &tm))
        strftime(buf, 32, "%Y-%m-%d %H:%M", &tm);
    return buf;
}

static void print_list(const json_t *answer)
{
    cl_table t;
    cl_table_begin(&t, "search>", "name", "user", "state", "phase", "priority>", "jobs done>", "of>", "submitted",
                   NULL);
    size_t i;
    const json_t *s;
    json_array_foreach(json_object_get(answer, "searches"), i, s)
    {
        char at[32];
        const json_t *jobs = json_object_get(s, "jobs");
        int64_t done = cl_int(jobs, "done"), all = done + cl_int(jobs, "failed") + cl_int(jobs, "cancelled") +
                                                   cl_int(jobs, "waiting") + cl_int(jobs, "ready") +
                                                   cl_int(jobs, "running");
        cl_table_cell(&t, "%" PRId64, cl_int(s, "id"));
        cl_table_cell(&t, "%s", cl_text(s, "name"));
        cl_table_cell(&t, "%s", cl_text(s, "user"));
        cl_table_cell(&t, "%s", cl_text(s, "state"));
        cl_table_cell(&t, "%s", cl_text(s, "phase"));
        cl_table_cell(&t, "%" PRId64, cl_int(s, "priority"));
        cl_table_cell(&t, "%" PRId64, done);
        cl_table_cell(&t, "%" PRId64, all);
        cl_table_cell(&t, "%s", when(cl_int(s, "submitted_ms"), at));
    }
    cl_table_end(&t, stdout);
}

static int run_list(const cl_args *a)
{
    int64_t limit = 20, after = 0;
    const char *l = cl_value(a, "--limit"), *b = cl_value(a, "--before");
    if ((l && !cl_number(a, "--limit", l, 1, 10000, &limit)) ||
        (b && !cl_number(a, "--before", b, 1, INT64_MAX, &after)))
        return CL_USAGE;
    return cl_ask_and_print(a, &(cl_ask){.what = "list", .limit = (uint32_t)limit, .after = (uint64_t)after},
                            print_list);
}

static void print_workers(const json_t *answer)
{
    cl_table t;
    cl_table_begin(&t, "worker>", "name", "device", "machine", "state", "jobs", NULL);
    size_t i, k;
    const json_t *w, *job;
    json_array_foreach(json_object_get(answer, "workers"), i, w)
    {
        es_str jobs = ES_STR_INIT;
        json_array_foreach(json_object_get(w, "jobs"), k, job)
            es_str_addf(&jobs, "%s%" PRId64, k ? " " : "", (int64_t)json_integer_value(job));
        cl_table_cell(&t, "%" PRId64, cl_int(w, "id"));
        cl_table_cell(&t, "%s", cl_text(w, "name"));
        cl_table_cell(&t, "%s", cl_text(w, "device"));
        cl_table_cell(&t, "%s", cl_text(w, "machine_kind"));
        cl_table_cell(&t, "%s%s%s", cl_text(w, "state"), cl_text(w, "reason")[0] ? ": " : "", cl_text(w, "reason"));
        cl_table_cell(&t, "%s", jobs.p);
        es_str_free(&jobs);
    }
    cl_table_end(&t, stdout);
}

static int run_workers(const cl_args *a) { return cl_ask_and_print(a, &(cl_ask){.what = "workers"}, print_workers); }

static const cl_option list_options[] = {{"--limit", "N", "at most so many (default 20)"},
                                         {"--before", "SEARCH", "only searches older than this one"},
                                         CL_JSON,
                                         CL_ENDPOINT,
                                         CL_END};
const cl_command cl_cmd_list = {"list", "", "list searches, newest first", 0, 0, run_list, list_options, NULL};

static const cl_option workers_options[] = {CL_JSON, CL_ENDPOINT, CL_END};
const cl_command cl_cmd_workers = {"workers",       "",  "list workers and what they do", 0, 0, run_workers,
                                   workers_options, NULL};
