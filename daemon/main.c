/* main.c - espalierd: reads its configuration, opens what it owns, and turns until it is told to end.
 *
 * A tour: server.c has the sockets and the loop; each round it hands at most 256 messages to coord/coord.c and calls dm_coord_turn, which is one
 * transaction. coord/worker.c knows the workers, coord/sched.c gives them jobs, coord/finish.c takes results, driver/ decides what comes next,
 * store/job.c is the only place where a job changes its state, and SQL stands in store/ and weights/ only. */
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "daemon/auth/accept.h"
#include "daemon/backup/restore.h"
#include "daemon/command_line.h"
#include "daemon/notify.h"
#include "daemon/server.h"

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

static int run_task(const dm_config *c, const dm_task *t)
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

static es_status reread(void *ctx, dm_config *out, es_error *err)
{
    dm_task task;
    return dm_command_line_read(ctx, out, &task, err);
}

int main(int argc, char **argv)
{
    dm_command_line line = {argc, argv};
    dm_config config;
    dm_server *server = NULL;
    es_error err = {0};
    sigset_t ends;
    dm_task todo;
    if (dm_command_line_read(&line, &config, &todo, &err) != ES_OK)
        return complain(&err);
    if (todo.show[0]) {
        fputs(todo.show, stdout);
        return 0;
    }
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
