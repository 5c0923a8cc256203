#include "client/command.h"

#include "base/str.h"
#include "base/version.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* One command a line. */
// clang-format off
extern const cl_command
    cl_cmd_run,
    cl_cmd_submit,
    cl_cmd_list,
    cl_cmd_show,
    cl_cmd_watch,
    cl_cmd_pareto,
    cl_cmd_export,
    cl_cmd_cancel,
    cl_cmd_pause,
    cl_cmd_resume,
    cl_cmd_retry,
    cl_cmd_priority,
    cl_cmd_delete,
    cl_cmd_pin,
    cl_cmd_unpin,
    cl_cmd_workers,
    cl_cmd_logs,
    cl_cmd_events,
    cl_cmd_why,
    cl_cmd_backup,
    cl_cmd_reload,
    cl_cmd_keygen,
    cl_cmd_explain,
    cl_cmd_cost;

static const cl_command *const commands[] = {
    &cl_cmd_run,
    &cl_cmd_submit,
    &cl_cmd_list,
    &cl_cmd_show,
    &cl_cmd_watch,
    &cl_cmd_pareto,
    &cl_cmd_export,
    &cl_cmd_cancel,
    &cl_cmd_pause,
    &cl_cmd_resume,
    &cl_cmd_retry,
    &cl_cmd_priority,
    &cl_cmd_delete,
    &cl_cmd_pin,
    &cl_cmd_unpin,
    &cl_cmd_workers,
    &cl_cmd_logs,
    &cl_cmd_events,
    &cl_cmd_why,
    &cl_cmd_backup,
    &cl_cmd_reload,
    &cl_cmd_keygen,
    &cl_cmd_explain,
    &cl_cmd_cost,
    NULL,
};
// clang-format on

int cl_fail(const es_error *err)
{
    char line[sizeof err->where + sizeof err->text + 4];
    fprintf(stderr, "espalier: %s\n", es_error_line(err, line, sizeof line));
    return CL_FAILED;
}

int cl_usage(const cl_args *a, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (a && a->command)
        fprintf(stderr, "espalier %s: %s (see espalier %s --help)\n", a->command->name, text, a->command->name);
    else
        fprintf(stderr, "espalier: %s (see espalier --help)\n", text);
    return CL_USAGE;
}

const char *cl_value(const cl_args *a, const char *option)
{
    for (int i = 0; a->command->options && a->command->options[i].name; i++)
        if (!strcmp(a->command->options[i].name, option))
            return a->value[i];
    ES_ASSERT(!"an option of the command's table");
    return NULL;
}

bool cl_number(const cl_args *a, const char *what, const char *text, int64_t min, int64_t max, int64_t *out)
{
    int64_t n;
    if (es_str_to_i64(text, false, &n) && n >= min && n <= max) {
        *out = n;
        return true;
    }
    cl_usage(a, "%s is \"%s\", allowed are whole numbers from %" PRId64 " to %" PRId64, what, text, min, max);
    return false;
}

static void print_help(void)
{
    puts("usage: espalier COMMAND [ARGUMENTS]\n\n"
         "Searches for neural networks worth keeping. `espalier run search.yaml` needs nothing else; the other "
         "commands talk to a coordinator (espalierd).\n");
    for (int i = 0; commands[i]; i++)
        printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
    puts("\n"
         "`espalier COMMAND --help` describes one. The coordinator is found by --endpoint, else ESPALIER_ENDPOINT, "
         "else tcp://127.0.0.1:5700;\na tcp one asks for a key: `espalier keygen --help`.\n"
         "exit status: 0 done, 1 failed, 2 wrong usage");
}

static void print_command_help(const cl_command *c)
{
    printf("usage: espalier %s %s%s\n\n%s\n", c->name, c->arguments,
           c->options && c->options[0].name ? " [options]" : "", c->summary);
    for (int i = 0; c->options && c->options[i].name; i++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s", c->options[i].name, c->options[i].value ? c->options[i].value : "");
        printf("%s  %-22s %s\n", i == 0 ? "\n" : "", left, c->options[i].help);
    }
    if (c->more)
        printf("\n%s", c->more);
}

static const char *closest_option(const cl_command *c, const char *word)
{
    const char *names[CL_OPTIONS_MAX + 2] = {"--help"};
    int n = 1;
    for (int i = 0; c->options && c->options[i].name; i++)
        names[n++] = c->options[i].name;
    return es_str_closest(word, names);
}

/* One option at argv[*i]: "--name VALUE", "--name=VALUE" or a flag. */
static bool read_option(const cl_command *c, int argc, char **argv, int *i, cl_args *a)
{
    const char *word = argv[*i], *equals = strchr(word, '=');
    size_t n = equals ? (size_t)(equals - word) : strlen(word);
    for (int k = 0; c->options && c->options[k].name; k++) {
        const cl_option *o = &c->options[k];
        if (strlen(o->name) != n || strncmp(o->name, word, n) != 0)
            continue;
        if (!o->value) {
            if (equals) {
                cl_usage(a, "%s takes no value", o->name);
                return false;
            }
            a->value[k] = "";
            return true;
        }
        if (equals) {
            a->value[k] = equals + 1;
        } else if (*i + 1 < argc) {
            a->value[k] = argv[++*i];
        } else {
            cl_usage(a, "%s needs a value: %s", o->name, o->value);
            return false;
        }
        return true;
    }
    char name[128];
    snprintf(name, sizeof name, "%.*s", (int)n, word);
    const char *near = closest_option(c, name);
    cl_usage(a, near ? "unknown option %s, did you mean %s?" : "unknown option %s", name, near);
    return false;
}

static int run_command(const cl_command *c, int argc, char **argv)
{
    cl_args a = {.command = c};
    bool options = true;
    for (int i = 0; i < argc; i++) {
        if (options && (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))) {
            print_command_help(c);
            return CL_OK;
        }
        if (options && !strcmp(argv[i], "--")) {
            options = false;
        } else if (options && argv[i][0] == '-' && argv[i][1] == '-') {
            if (!read_option(c, argc, argv, &i, &a))
                return CL_USAGE;
        } else if (a.words == CL_WORDS_MAX) {
            return cl_usage(&a, "more than %d arguments", CL_WORDS_MAX);
        } else {
            a.word[a.words++] = argv[i];
        }
    }
    if (a.words < c->words_min)
        return cl_usage(&a, "missing argument, expected: %s", c->arguments);
    if (a.words > c->words_max)
        return cl_usage(&a, "unexpected argument \"%s\", expected: %s", a.word[c->words_max],
                        c->arguments[0] ? c->arguments : "none");
    return c->run(&a);
}

int cl_main(int argc, char **argv)
{
    if (argc < 2) {
        print_help();
        return CL_USAGE;
    }
    const char *word = argv[1];
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || (!strcmp(word, "help") && argc == 2)) {
        print_help();
        return CL_OK;
    }
    if (!strcmp(word, "--version")) {
        printf("espalier %s\n", es_version());
        return CL_OK;
    }
    bool help = !strcmp(word, "help");
    const char *name = help ? argv[2] : word;
    const char *names[64] = {0};
    for (int i = 0; commands[i]; i++) {
        names[i] = commands[i]->name;
        if (strcmp(names[i], name) != 0)
            continue;
        if (help) {
            print_command_help(commands[i]);
            return CL_OK;
        }
        return run_command(commands[i], argc - 2, argv + 2);
    }
    const char *near = es_str_closest(name, names);
    return cl_usage(NULL, near ? "unknown command \"%s\", did you mean \"%s\"?" : "unknown command \"%s\"", name, near);
}
