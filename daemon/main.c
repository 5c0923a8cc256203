/* main.c - espalierd: reads its configuration, opens what it owns, and turns until it is told to end.
 *
 * A tour: server.c has the sockets and the loop; each round it hands at most 256 messages to coord/coord.c and calls dm_coord_turn, which is one transaction.
 * coord/worker.c knows the workers, coord/sched.c gives them jobs, coord/finish.c takes results, driver/ decides what comes next, store/job.c is the only place where
 * a job changes its state, the SQL is in store/ only. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/version.h"
#include "daemon/auth/accept.h"
#include "daemon/backup/restore.h"
#include "daemon/notify.h"
#include "daemon/server.h"

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

static int option(dm_config *c, int opt, const char *value)
{
    char *to = opt == 'd'   ? c->dir
               : opt == 'k' ? c->control[0]
               : opt == 'w' ? c->data
               : opt == 's' ? c->status
               : opt == 'h' ? c->http
               : opt == 'K' ? c->keys
                            : NULL;
    if (opt == 'l')
        return es_log_level_parse(value, &c->log) ? 0 : -1;
    if (opt == 'f') {
        c->log_json = strcmp(value, "json") == 0;
        return c->log_json || strcmp(value, "text") == 0 ? 0 : -1;
    }
    if (opt == 'k')
        c->controls = 1;
    return to && snprintf(to, DM_CONFIG_TEXT, "%s", value) < DM_CONFIG_TEXT ? 0 : -1;
}

/* What to do besides serving. */
typedef struct task {
    bool check, force;
    const char *restore;
} task;

static es_status configure(int argc, char **argv, dm_config *c, task *t, es_error *err)
{
    static const struct option longs[] = {
        {"config", 1, NULL, 'c'}, {"dir", 1, NULL, 'd'},        {"control", 1, NULL, 'k'}, {"data", 1, NULL, 'w'},
        {"status", 1, NULL, 's'}, {"http", 1, NULL, 'h'},       {"keys", 1, NULL, 'K'},    {"insecure", 0, NULL, 'I'},
        {"log", 1, NULL, 'l'},    {"log-format", 1, NULL, 'f'}, {"check", 0, NULL, 'C'},   {"restore", 1, NULL, 'R'},
        {"force", 0, NULL, 'F'},  {"help", 0, NULL, 'H'},       {"version", 0, NULL, 'V'}, {NULL, 0, NULL, 0}};
    int opt;
    dm_config_default(c);
    optind = 0; /* from the beginning, also the second time (reload) */
    while ((opt = getopt_long(argc, argv, "c:", longs, NULL)) != -1)
        if (opt == 'c') {
            ES_RETURN(dm_config_read(optarg, c, err));
        } else if (opt == 'H') {
            fputs(usage, stdout);
            exit(EXIT_SUCCESS);
        } else if (opt == 'V') {
            printf("espalierd %s\n", es_version());
            exit(EXIT_SUCCESS);
        }
    optind = 0;
    *t = (task){0};
    while ((opt = getopt_long(argc, argv, "c:", longs, NULL)) != -1) {
        if (opt == 'C')
            t->check = true;
        else if (opt == 'F')
            t->force = true;
        else if (opt == 'R')
            t->restore = optarg;
        else if (opt == 'I')
            c->insecure = true;
        else if (opt == '?' || (opt != 'c' && option(c, opt, optarg) != 0))
            return es_fail(err, ES_INVALID, opt == '?' ? "command line" : optarg, "is not understood\n%s", usage);
    }
    if (optind < argc)
        return es_fail(err, ES_INVALID, argv[optind], "is not understood\n%s", usage);
    return dm_config_check(c, err);
}

enum { DESCRIPTORS = 64 }; /* databases, sockets and threads take about 40; each peer takes one more */

static int complain(const es_error *err)
{
    char line[800];
    fprintf(stderr, "espalierd: %s\n", es_error_line(err, line, sizeof line));
    return err->code == ES_INVALID ? 2 : 1;
}

/* A damaged database is of no use; a backup is. */
static int complain_of_damage(const dm_config *c, es_error *err)
{
    char path[600];
    dm_backup_info info;
    int rc = complain(err);
    if (err->code != ES_CORRUPT)
        return rc;
    if (dm_backup_last(c->backup_dir, path, &info) == ES_OK)
        fprintf(stderr,
                "espalierd: the last good backup is %s (%.1f hours old): espalierd --dir %s --restore %s --force\n",
                path, (double)(es_clock_wall_ms(es_clock_system()) - info.made_ms) / 3600000, c->dir, path);
    else
        fprintf(stderr, "espalierd: there is no good backup in %s\n", c->backup_dir);
    return rc;
}

static int run_task(const dm_config *c, const task *t)
{
    char said[1600];
    es_error err = {0};
    if (t->restore) {
        if (dm_restore(c->dir, t->restore, t->force, said, &err) != ES_OK)
            return complain(&err);
        puts(said);
        return 0;
    }
    if (dm_server_check(c, &err) != ES_OK)
        return complain_of_damage(c, &err);
    printf("%s: the databases are whole\n", c->dir);
    return 0;
}

typedef struct command_line {
    int argc;
    char **argv;
} command_line;

static es_status reread(void *ctx, dm_config *out, es_error *err)
{
    command_line *l = ctx;
    task t;
    return configure(l->argc, l->argv, out, &t, err);
}

int main(int argc, char **argv)
{
    command_line line = {argc, argv};
    dm_config config;
    dm_server *server = NULL;
    es_error err = {0};
    sigset_t ends;
    task todo;
    if (configure(argc, argv, &config, &todo, &err) != ES_OK)
        return complain(&err);
    es_log_init("espalierd", config.log);
    es_log_json(config.log_json);
    if (es_file_limit(DESCRIPTORS, &err) != ES_OK)
        return complain(&err);
    dm_accept_keep(DESCRIPTORS / 2);
    umask(0077); /* databases, keys, backups: nobody else's business */
    if (todo.check || todo.restore)
        return run_task(&config, &todo);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is a write that fails, as on a full disk */
    /* Blocked before any thread starts, so that signals come only through the descriptor. */
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGHUP);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    int fd = signalfd(-1, &ends, SFD_CLOEXEC);
    if (dm_server_open(&config, &server, &err) != ES_OK)
        return complain_of_damage(&config, &err);
    dm_server_on_reload(server, reread, &line);
    puts(dm_server_ready(server));
    fflush(stdout);
    dm_notify("READY=1\nSTATUS=%s", dm_server_ready(server));
    es_status s = dm_server_run(server, fd, &err);
    dm_notify("STOPPING=1");
    dm_server_close(&server);
    close(fd);
    return s == ES_OK ? 0 : complain(&err);
}
