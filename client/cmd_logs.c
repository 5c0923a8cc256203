/* logs, why: what went wrong, and what is being waited for. */
#include "client/connect.h"

#include <inttypes.h>
#include <string.h>

static void print_logs(const json_t *answer)
{
    const json_t *logs = json_object_get(answer, "logs"), *l;
    size_t i;
    json_array_foreach(logs, i, l)
    {
        printf("job %" PRId64 " attempt %" PRId64 " on %s: %s", cl_int(l, "job"), cl_int(l, "attempt"),
               cl_text(l, "worker"), cl_text(l, "outcome"));
        printf("%s%s\n", cl_text(l, "error")[0] ? ": " : "", cl_text(l, "error"));
        const char *text = cl_text(l, "log");
        for (const char *end; *text; text = *end ? end + 1 : end) {
            end = strchr(text, '\n');
            end = end ? end : text + strlen(text);
            printf("    %.*s\n", (int)(end - text), text);
        }
    }
    if (json_array_size(logs) == 0)
        puts("no attempts yet");
}

static int run_logs(const cl_args *a)
{
    uint64_t search = 0;
    int64_t job = 0;
    const char *text = cl_value(a, "--job");
    if (!cl_search_id(a, 0, &search) || (text && !cl_number(a, "--job", text, 1, INT64_MAX, &job)))
        return CL_USAGE;
    return cl_ask_and_print(a, &(cl_ask){.what = "logs", .search = search, .job = (uint64_t)job}, print_logs);
}

static void print_why(const json_t *answer) { printf("%s\n", cl_text(answer, "text")); }

static int run_why(const cl_args *a)
{
    int64_t job = 0;
    if (!cl_number(a, "JOB", a->word[0], 1, INT64_MAX, &job))
        return CL_USAGE;
    return cl_ask_and_print(a, &(cl_ask){.what = "why", .job = (uint64_t)job}, print_why);
}

static const cl_option logs_options[] = {{"--job", "JOB", "only this job"}, CL_JSON, CL_ENDPOINT, CL_END};
const cl_command cl_cmd_logs = {"logs",
                                "SEARCH",
                                "print the attempts of a search's jobs, with the last log lines of those that failed",
                                1,
                                1,
                                run_logs,
                                logs_options,
                                NULL};
static const cl_option why_options[] = {CL_JSON, CL_ENDPOINT, CL_END};
const cl_command cl_cmd_why = {"why",       "JOB", "say in one line what a job is waiting for", 1, 1, run_why,
                               why_options, NULL};
