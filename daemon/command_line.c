#include "daemon/command_line.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/version.h"

static const char usage[] =
    "usage: espalierd [-c FILE] [--dir DIR] [--control ENDPOINT] [--data ENDPOINT] [--status ENDPOINT] [--http "
    "ADDRESS] [--keys DIR] [--insecure] [--log LEVEL] [--log-format text|json]\n"
    "       espalierd [-c FILE] [--dir DIR] --check\n"
    "       espalierd [-c FILE] [--dir DIR] --restore BACKUP [--force]\n"
    "       espalierd --help | --version\n"
    "\n"
    "The coordinator: keeps searches and jobs in DIR, gives jobs to workers. Options win over FILE (espalierd.yaml).\n"
    "--check reads the databases in DIR from end to end and says whether they are whole.\n"
    "--restore puts a backup (`espalier backup`, or one of DIR/backups) into DIR after verifying it; with --force also "
    "in "
    "the place\nof databases that are there, which are kept aside.\n"
    "tcp endpoints are encrypted and ask for a key of DIR/keys/authorized_keys (`espalier keygen`; docs/security.md); "
    "--insecure leaves\nthem in clear, open to everybody who can connect.\n"
    "Prints one line beginning with \"ready\" when it listens. SIGTERM ends it; nothing is lost however it ends.\n";

enum {
    CONFIG = 'c',
    DIR = 256, /* above every character: long options only */
    CONTROL,
    DATA,
    STATUS,
    HTTP,
    KEYS,
    INSECURE,
    LOG,
    LOG_FORMAT,
    CHECK,
    RESTORE,
    FORCE,
    HELP,
    VERSION
};

static const struct option options[] = {
    {"config", required_argument, NULL, CONFIG},   {"dir", required_argument, NULL, DIR},
    {"control", required_argument, NULL, CONTROL}, {"data", required_argument, NULL, DATA},
    {"status", required_argument, NULL, STATUS},   {"http", required_argument, NULL, HTTP},
    {"keys", required_argument, NULL, KEYS},       {"insecure", no_argument, NULL, INSECURE},
    {"log", required_argument, NULL, LOG},         {"log-format", required_argument, NULL, LOG_FORMAT},
    {"check", no_argument, NULL, CHECK},           {"restore", required_argument, NULL, RESTORE},
    {"force", no_argument, NULL, FORCE},           {"help", no_argument, NULL, HELP},
    {"version", no_argument, NULL, VERSION},       {NULL, 0, NULL, 0},
};

static es_status set_text(char to[DM_CONFIG_TEXT], const char *option, const char *value, es_error *err)
{
    if (strlen(value) >= DM_CONFIG_TEXT)
        return es_fail(err, ES_INVALID, option, "has %zu bytes, at most %d are allowed", strlen(value),
                       DM_CONFIG_TEXT - 1);
    snprintf(to, DM_CONFIG_TEXT, "%s", value);
    return ES_OK;
}

/* One option of those that the second reading looks at. */
static es_status set_option(int option, const char *value, dm_config *c, dm_task *t, es_error *err)
{
    switch (option) {
    case DIR: return set_text(c->dir, "--dir", value, err);
    case CONTROL:
        c->controls = 1; /* in the place of all that the file names */
        return set_text(c->control[0], "--control", value, err);
    case DATA: return set_text(c->data, "--data", value, err);
    case STATUS: return set_text(c->status, "--status", value, err);
    case HTTP: return set_text(c->http, "--http", value, err);
    case KEYS: return set_text(c->keys, "--keys", value, err);
    case INSECURE: c->insecure = true; return ES_OK;
    case LOG:
        if (es_log_level_parse(value, &c->log))
            return ES_OK;
        return es_fail(err, ES_INVALID, "--log", "is \"%s\": allowed are debug, info, warn, error and off", value);
    case LOG_FORMAT:
        c->log_json = strcmp(value, "json") == 0;
        if (c->log_json || strcmp(value, "text") == 0)
            return ES_OK;
        return es_fail(err, ES_INVALID, "--log-format", "is \"%s\": allowed are text and json", value);
    case CHECK: t->check = true; return ES_OK;
    case RESTORE: t->restore = value; return ES_OK;
    case FORCE: t->force = true; return ES_OK;
    case ':': return es_fail(err, ES_INVALID, "command line", "'%s' lacks a value (see espalierd --help)", value);
    default: return es_fail(err, ES_INVALID, "command line", "'%s' is not understood (see espalierd --help)", value);
    }
}

es_status dm_command_line_read(const dm_command_line *line, dm_config *config, dm_task *task, es_error *err)
{
    int option;
    dm_config_default(config);
    *task = (dm_task){0};
    opterr = 0; /* it is told once, by our error */
    optind = 0; /* from the beginning, whoever called getopt before */
    while ((option = getopt_long(line->argc, line->argv, ":c:", options, NULL)) != -1) {
        if (option == CONFIG)
            ES_RETURN(dm_config_read(optarg, config, err));
        else if (option == HELP || option == VERSION) {
            if (option == HELP)
                snprintf(task->show, sizeof task->show, "%s", usage);
            else
                snprintf(task->show, sizeof task->show, "espalierd %s\n", es_version());
            return ES_OK;
        }
    }
    optind = 0;
    while ((option = getopt_long(line->argc, line->argv, ":c:", options, NULL)) != -1)
        if (option != CONFIG)
            ES_RETURN(set_option(option, option == '?' || option == ':' ? line->argv[optind - 1] : optarg, config, task,
                                 err));
    if (optind < line->argc)
        return es_fail(err, ES_INVALID, line->argv[optind], "is not understood (see espalierd --help)");
    return dm_config_check(config, err);
}
