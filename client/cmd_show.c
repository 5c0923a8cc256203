/* show: a search with its jobs as a tree. A job hangs below the last of the jobs it needs; long runs of alike siblings are folded. */
#include "client/connect.h"
#include "client/table.h"

#include "base/arena.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { FOLD_FROM = 6 };

typedef struct tree {
    const json_t *jobs;
    size_t n;
    int64_t *id;
    long *parent; /* index; -1: a root */
} tree;

static void print_job(const json_t *j)
{
    char took[32];
    const char *state = cl_text(j, "state"), *key = cl_text(j, "key");
    printf("%" PRId64 " %s%s%s  %s", cl_int(j, "id"), cl_text(j, "kind"), key[0] ? " " : "", key, state);
    int64_t step = cl_int(j, "step"), steps = cl_int(j, "steps");
    if (steps > 0 && strcmp(state, "done") != 0)
        printf("  %" PRId64 "/%" PRId64 " (%.0f %%)", step, steps, 100.0 * (double)step / (double)steps);
    if (cl_num(j, "loss") > 0)
        printf("  loss %.4f", cl_num(j, "loss"));
    if (cl_num(j, "per_second") > 0)
        printf("  %.0f/s", cl_num(j, "per_second"));
    if (cl_num(j, "seconds") > 0)
        printf("  cost %s", cl_duration(cl_num(j, "seconds"), took));
    if (cl_text(j, "worker")[0] && !strcmp(state, "running"))
        printf("  on %s", cl_text(j, "worker"));
    if (cl_int(j, "failures") > 0)
        printf("  failed %" PRId64 " times", cl_int(j, "failures"));
    if (cl_int(j, "losses") > 0)
        printf("  lost %" PRId64 " times", cl_int(j, "losses"));
    if (cl_text(j, "error")[0])
        printf("  [%s]", cl_text(j, "error"));
    putchar('\n');
}

static bool has_children(const tree *t, size_t i)
{
    for (size_t k = 0; k < t->n; k++)
        if (t->parent[k] == (long)i)
            return true;
    return false;
}

static bool alike(const tree *t, size_t a, size_t b)
{
    const json_t *x = json_array_get(t->jobs, a), *y = json_array_get(t->jobs, b);
    return !strcmp(cl_text(x, "kind"), cl_text(y, "kind")) && !strcmp(cl_text(x, "state"), cl_text(y, "state")) &&
           !has_children(t, a) && !has_children(t, b) && !cl_text(x, "error")[0] && !cl_text(y, "error")[0];
}

/* How many siblings of i, from i on, may be one line. */
static size_t run_length(const tree *t, const size_t *kids, size_t n, size_t from)
{
    size_t k = from + 1;
    while (k < n && alike(t, kids[from], kids[k]))
        k++;
    return k - from;
}

static void print_folded(const tree *t, const size_t *kids, size_t count)
{
    double seconds = 0;
    char took[32];
    for (size_t i = 0; i < count; i++)
        seconds += cl_num(json_array_get(t->jobs, kids[i]), "seconds");
    const json_t *a = json_array_get(t->jobs, kids[0]), *b = json_array_get(t->jobs, kids[count - 1]);
    printf("%" PRId64 " ... %" PRId64 "  %zu x %s  %s", cl_int(a, "id"), cl_int(b, "id"), count, cl_text(a, "kind"),
           cl_text(a, "state"));
    if (seconds > 0)
        printf("  cost %s", cl_duration(seconds, took));
    putchar('\n');
}

static void print_children(const tree *t, long parent, es_str *indent, int depth)
{
    size_t *kids = es_xcalloc(t->n + 1, sizeof *kids), n = 0;
    for (size_t i = 0; i < t->n; i++)
        if (t->parent[i] == parent)
            kids[n++] = i;
    for (size_t i = 0; i < n;) {
        size_t run = run_length(t, kids, n, i), length = indent->len;
        run = run >= FOLD_FROM ? run : 1;
        bool last = i + run == n;
        printf("%s%s", indent->p, last ? "`-- " : "|-- ");
        if (run > 1) {
            print_folded(t, kids + i, run);
        } else {
            print_job(json_array_get(t->jobs, kids[i]));
            es_str_add(indent, last ? "    " : "|   ");
            if (depth < 64)
                print_children(t, (long)kids[i], indent, depth + 1);
            indent->len = length;
            indent->p[length] = 0;
        }
        i += run;
    }
    free(kids);
}

static void tree_make(tree *t, const json_t *jobs)
{
    t->jobs = jobs;
    t->n = json_array_size(jobs);
    t->id = es_xcalloc(t->n + 1, sizeof *t->id);
    t->parent = es_xcalloc(t->n + 1, sizeof *t->parent);
    for (size_t i = 0; i < t->n; i++)
        t->id[i] = cl_int(json_array_get(jobs, i), "id");
    for (size_t i = 0; i < t->n; i++) {
        const json_t *needs = json_object_get(json_array_get(jobs, i), "needs"), *need;
        int64_t last = -1;
        size_t k;
        json_array_foreach(needs, k, need) last =
            json_integer_value(need) > last ? (int64_t)json_integer_value(need) : last;
        t->parent[i] = -1;
        for (size_t p = 0; p < i && last >= 0; p++) /* jobs come in order of creation: a need stands before */
            if (t->id[p] == last)
                t->parent[i] = (long)p;
    }
}

static void print_show(const json_t *answer)
{
    const json_t *s = json_object_get(answer, "search"), *p = json_object_get(s, "progress");
    const json_t *e = json_object_get(p, "evaluations");
    printf("search %" PRId64 " %s  %s", cl_int(s, "id"), cl_text(s, "name"), cl_text(s, "state"));
    if (cl_text(s, "phase")[0])
        printf("  phase %s", cl_text(s, "phase"));
    if (cl_int(e, "total") > 0)
        printf("  evaluations %" PRId64 "/%" PRId64, cl_int(e, "done"), cl_int(e, "total"));
    if (!cl_null(p, "left_s")) {
        char left[32];
        printf("  left %s", cl_duration(cl_num(p, "left_s"), left));
    }
    putchar('\n');
    if (cl_text(s, "reason")[0])
        printf("reason: %s\n", cl_text(s, "reason"));
    tree t;
    tree_make(&t, json_object_get(answer, "jobs"));
    es_str indent = ES_STR_INIT;
    print_children(&t, -1, &indent, 0);
    es_str_free(&indent);
    free(t.id);
    free(t.parent);
}

static int run_show(const cl_args *a)
{
    uint64_t id = 0;
    if (!cl_search_id(a, 0, &id))
        return CL_USAGE;
    return cl_ask_and_print(a, &(cl_ask){.what = "show", .search = id}, print_show);
}

static const cl_option options[] = {CL_JSON, CL_ENDPOINT, CL_END};
const cl_command cl_cmd_show = {
    "show", "SEARCH", "print a search and its jobs as a tree, with progress and cost", 1, 1, run_show, options, NULL};
