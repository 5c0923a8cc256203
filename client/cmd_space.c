/* cost, explain: what a space's architectures are, without a coordinator. */
#include "client/command.h"

#include "base/file.h"
#include "supernet/space/space.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ARCHS_MAX = 256 << 20 };

static es_status read_all(FILE *f, char **data, size_t *n, es_error *err)
{
    es_str s = ES_STR_INIT;
    char block[65536];
    for (size_t k; (k = fread(block, 1, sizeof block, f)) > 0;) {
        es_str_addn(&s, block, k);
        if (s.len > ARCHS_MAX) {
            es_str_free(&s);
            return es_fail(err, ES_INVALID, "standard input", "more than %d bytes", ARCHS_MAX);
        }
    }
    *n = s.len;
    *data = es_str_take(&s);
    return ES_OK;
}

static es_status print_all(const es_str *s, es_error *err)
{
    if (fwrite(s->p, 1, s->len, stdout) != s->len || fflush(stdout) != 0)
        return es_fail_errno(err, "standard output", "cannot write");
    return ES_OK;
}

static int run_cost(const cl_args *a)
{
    es_error err = {0};
    es_status s = ES_OK;
    sn_space *space = NULL;
    char *archs = NULL;
    size_t n = 0;
    es_str out = ES_STR_INIT;
    const char *path = cl_value(a, "--archs");
    if (!path)
        return cl_usage(a, "--archs FILE is missing");
    ES_GOTO(sn_space_load(a->word[0], &space, &err));
    if (!strcmp(path, "-"))
        ES_GOTO(read_all(stdin, &archs, &n, &err));
    else
        ES_GOTO(es_file_read(path, ARCHS_MAX, &archs, &n, &err));
    ES_GOTO(sn_cost_csv(space, path, archs, n, &out, &err));
    ES_GOTO(print_all(&out, &err));
fail:
    es_str_free(&out);
    free(archs);
    sn_space_destroy(&space);
    return s == ES_OK ? CL_OK : cl_fail(&err);
}

static int run_explain(const cl_args *a)
{
    es_error err = {0};
    es_status s = ES_OK;
    sn_space *space = NULL;
    sr_arch *arch = NULL;
    es_str out = ES_STR_INIT;
    ES_GOTO(sn_space_load(a->word[0], &space, &err));
    arch = sr_arch_new(sn_space_choices(space));
    if (!strcmp(a->word[1], "largest"))
        sr_arch_largest(sn_space_choices(space), arch);
    else if (!strcmp(a->word[1], "smallest"))
        sr_arch_smallest(sn_space_choices(space), arch);
    else
        ES_GOTO(sn_arch_parse(space, a->word[1], arch, &err));
    ES_GOTO(cl_flag(a, "--dot") ? sn_explain_dot(space, arch, &out, &err) : sn_explain_print(space, arch, &out, &err));
    ES_GOTO(print_all(&out, &err));
fail:
    es_str_free(&out);
    free(arch);
    sn_space_destroy(&space);
    return s == ES_OK ? CL_OK : cl_fail(&err);
}

static const cl_option cost_options[] = {
    {"--archs", "FILE", "one architecture a line, in the space's own notation; - is standard input"},
    {NULL, NULL, NULL},
};
const cl_command cl_cmd_cost = {
    "cost",
    "SPACE --archs FILE",
    "print parameters, multiply-adds and activation bytes of architectures as CSV",
    1,
    1,
    run_cost,
    cost_options,
    "SPACE is a YAML file that is a space or has a `space:` key, such as a search file. The output has the header\n"
    "architecture,params,macs,activation_bytes and one line per input line, in order.\n"};

static const cl_option explain_options[] = {
    {"--dot", NULL, "print a graph for Graphviz instead of the table of layers"},
    {NULL, NULL, NULL},
};
const cl_command cl_cmd_explain = {"explain",
                                   "SPACE ARCH",
                                   "print the layers of an architecture with shapes, parameters and multiply-adds",
                                   2,
                                   2,
                                   run_explain,
                                   explain_options,
                                   "ARCH is in the space's own notation, or `largest` or `smallest`.\n"};
