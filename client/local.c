#include "client/local.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOCK_WAIT_MS = 10000, END_MS = 60000, DEATHS_MAX = 5, SOCKET_PATH_MAX = 90 };

typedef struct child {
    pid_t pid; /* 0: not running */
    char name[32];
    char *log;
    const char *program;
    char *argument[8];
    int deaths;
    int64_t started_ms;
} child;

struct cl_local {
    char *dir, *sockets, *control, *data, *config;
    bool own_sockets; /* outside dir: to be removed */
    int lock;
    char *programs; /* where this program lies */
    child coordinator, worker[CL_WORKERS_MAX];
    int workers;
};

static int64_t now_ms(void) { return es_clock_mono_ms(es_clock_system()); }

static char *join(const char *dir, const char *name)
{
    es_str s = ES_STR_INIT;
    es_str_addf(&s, "%s/%s", dir, name);
    return es_str_take(&s);
}

static void pause_ms(int ms) { poll(NULL, 0, ms); }

/* ---- the directory ---- */

static es_status take_lock(cl_local *l, es_error *err)
{
    char *path = join(l->dir, "lock");
    es_status s = ES_OK;
    bool said = false;
    /* Inherited by the children: the lock lasts until the last of them is gone. */
    l->lock = open(path, O_RDWR | O_CREAT, 0600);
    if (l->lock < 0)
        s = es_fail_errno(err, path, "cannot open the lock file");
    for (int64_t end = now_ms() + LOCK_WAIT_MS; s == ES_OK && flock(l->lock, LOCK_EX | LOCK_NB) != 0;) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            s = es_fail_errno(err, path, "cannot lock");
        else if (now_ms() > end)
            s = es_fail(err, ES_BUSY, l->dir,
                        "another espalier run works in this directory; wait for it, stop it, or choose another --out");
        else {
            if (!said && now_ms() > end - LOCK_WAIT_MS + 1000)
                said = fprintf(stderr, "waiting for an earlier run in %s to end\n", l->dir) > 0;
            pause_ms(100);
        }
    }
    free(path);
    return s;
}

/* Socket paths are short by law of the kernel: where the directory's is not, they go to /tmp under a name made from it. */
static es_status choose_sockets(cl_local *l, es_error *err)
{
    if (strlen(l->dir) < SOCKET_PATH_MAX) {
        l->sockets = es_xstrdup(l->dir);
        return ES_OK;
    }
    es_id id;
    char hex[ES_ID_HEX];
    es_id_bytes(l->dir, strlen(l->dir), &id);
    es_id_hex(&id, hex);
    es_str s = ES_STR_INIT;
    es_str_addf(&s, "/tmp/espalier-%u-%s", (unsigned)getuid(), hex);
    l->sockets = es_str_take(&s);
    l->own_sockets = true;
    struct stat st;
    if (mkdir(l->sockets, 0700) != 0 && errno != EEXIST)
        return es_fail_errno(err, l->sockets, "cannot make the directory for sockets");
    if (lstat(l->sockets, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != getuid() || (st.st_mode & 077))
        return es_fail(err, ES_DENIED, l->sockets, "the directory for sockets belongs to somebody else; remove it");
    return ES_OK;
}

static es_status write_config(cl_local *l, es_error *err)
{
    es_str s = ES_STR_INIT, quoted = ES_STR_INIT;
    for (const char *c = l->dir; *c; c++)
        es_str_addn(&quoted, *c == '\'' ? "''" : c, *c == '\'' ? 2 : 1);
    es_str_addf(&s, "# written by `espalier run`\ndir: '%s'\n", quoted.p);
    es_str_clear(&quoted);
    for (const char *c = l->sockets; *c; c++)
        es_str_addn(&quoted, *c == '\'' ? "''" : c, *c == '\'' ? 2 : 1);
    es_str_addf(
        &s,
        "control: 'ipc://%s/control'\ndata: 'ipc://%s/data'\nstatus: 'ipc://%s/status'\nhttp: ''\nheartbeat_ms: 500\n",
        quoted.p, quoted.p, quoted.p);
    es_status status = es_file_write(l->config, s.p, s.len, err);
    es_str_free(&s);
    es_str_free(&quoted);
    return status;
}

static char *program_dir(void)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0)
        return es_xstrdup("");
    path[n] = 0;
    char *slash = strrchr(path, '/');
    *slash = 0;
    return es_xstrdup(path);
}

es_status cl_local_open(const char *dir, cl_local **out, es_error *err)
{
    *out = NULL;
    cl_local *l = es_xcalloc(1, sizeof *l);
    es_status s = ES_OK;
    char *full = NULL;
    l->lock = -1;
    ES_GOTO(es_file_mkdirs(dir, err));
    full = realpath(dir, NULL);
    if (!full) {
        s = es_fail_errno(err, dir, "cannot use the directory");
        goto fail;
    }
    l->dir = es_xstrdup(full);
    ES_GOTO(take_lock(l, err));
    ES_GOTO(choose_sockets(l, err));
    es_str e = ES_STR_INIT;
    es_str_addf(&e, "ipc://%s/control", l->sockets);
    l->control = es_str_take(&e);
    es_str_addf(&e, "ipc://%s/data", l->sockets);
    l->data = es_str_take(&e);
    l->config = join(l->dir, "espalierd.yaml");
    l->programs = program_dir();
    ES_GOTO(write_config(l, err));
    *out = l;
    l = NULL;
fail:
    free(full);
    cl_local_close(&l);
    return s;
}

/* ---- children ---- */

static es_status find_program(const cl_local *l, const char *name, char **out, es_error *err)
{
    char *path = join(l->programs, name);
    if (access(path, X_OK) == 0) {
        *out = path;
        return ES_OK;
    }
    free(path);
    const char *at = getenv("PATH");
    while (at && *at) {
        size_t n = strcspn(at, ":");
        es_str s = ES_STR_INIT;
        es_str_addn(&s, at, n);
        es_str_addf(&s, "/%s", name);
        *out = es_str_take(&s);
        if (n && access(*out, X_OK) == 0)
            return ES_OK;
        free(*out);
        at += n + (at[n] == ':');
    }
    *out = NULL;
    return es_fail(err, ES_NOT_FOUND, name,
                   "the program is neither beside espalier (%s) nor in PATH: build or install it", l->programs);
}

static void exec_child(const cl_local *l, const char *path, char *const *arguments, int log)
{
    int null = open("/dev/null", O_RDONLY);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    setpgid(0, 0); /* Ctrl-C is for the parent alone, which ends its children in order */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    if (chdir(l->dir) == 0)
        execv(path, arguments);
    _exit(127);
}

static es_status start_child(cl_local *l, child *c, es_error *err)
{
    char *path = NULL;
    es_status s = ES_OK;
    int log = -1;
    ES_GOTO(find_program(l, c->program, &path, err));
    log = open(c->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0) {
        s = es_fail_errno(err, c->log, "cannot open the log");
        goto fail;
    }
    char *arguments[10] = {path};
    for (int i = 0; i < 8; i++)
        arguments[i + 1] = c->argument[i];
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        if (getppid() == parent)
            exec_child(l, path, arguments, log);
        _exit(127);
    }
    if (pid < 0) {
        s = es_fail_errno(err, c->program, "cannot start");
        goto fail;
    }
    c->pid = pid;
    c->started_ms = now_ms();
fail:
    if (log >= 0)
        close(log);
    free(path);
    return s;
}

/* The last line of a child's log: mostly what it died of. */
static char *last_line(const char *log)
{
    char buf[4096];
    FILE *f = fopen(log, "r");
    if (!f)
        return es_xstrdup("");
    if (fseek(f, -(long)sizeof buf + 1, SEEK_END) != 0)
        rewind(f);
    size_t n = fread(buf, 1, sizeof buf - 1, f);
    fclose(f);
    while (n && buf[n - 1] == '\n')
        n--;
    buf[n] = 0;
    char *line = strrchr(buf, '\n');
    return es_xstrdup(line ? line + 1 : buf);
}

static bool reaped(child *c, int *status)
{
    if (!c->pid || waitpid(c->pid, status, WNOHANG) != c->pid)
        return false;
    c->pid = 0;
    return true;
}

static es_status died(const child *c, int status, es_error *err)
{
    char *line = last_line(c->log);
    es_status s;
    if (WIFSIGNALED(status))
        s = es_fail(err, ES_LOST, c->name, "ended by signal %d; its log is %s", WTERMSIG(status), c->log);
    else
        s = es_fail(err, ES_LOST, c->name, "%s (exit %d; its log is %s)", line[0] ? line : "ended", WEXITSTATUS(status),
                    c->log);
    free(line);
    return s;
}

/* Started again when it had lived a while or died by a signal; what fails at once and of itself is reported. */
static es_status tend(cl_local *l, child *c, es_error *err)
{
    int status;
    if (!reaped(c, &status))
        return ES_OK;
    bool lived = now_ms() - c->started_ms > 60000;
    c->deaths = lived ? 1 : c->deaths + 1;
    es_error why;
    es_status s = died(c, status, &why);
    if (c->deaths > DEATHS_MAX || (WIFEXITED(status) && now_ms() - c->started_ms < 2000)) {
        if (err)
            *err = why;
        return s;
    }
    es_log_error(ES_LOG_WARN, "started again", &why);
    return start_child(l, c, err);
}

es_status cl_local_tend(cl_local *l, es_error *err)
{
    ES_RETURN(tend(l, &l->coordinator, err));
    for (int i = 0; i < l->workers; i++)
        ES_RETURN(tend(l, &l->worker[i], err));
    return ES_OK;
}

/* Ready when it answers. */
static es_status wait_ready(cl_local *l, es_error *err)
{
    dm_peer *p = NULL;
    ES_RETURN(dm_peer_open(&(dm_peer_options){.endpoint = l->control}, &p, err));
    es_status s = ES_TIMEOUT;
    for (int64_t end = now_ms() + END_MS; s == ES_TIMEOUT && now_ms() < end;) {
        Espalier__Wire__Query q = ESPALIER__WIRE__QUERY__INIT;
        q.what = dm_text("status");
        dm_to_peer *r = NULL;
        s = dm_peer_call(p, &DM_FROM_PEER(QUERY, query, &q), 300, &r, err);
        dm_to_peer_free(&r);
        int status;
        if (s == ES_TIMEOUT && reaped(&l->coordinator, &status))
            s = died(&l->coordinator, status, err);
    }
    dm_peer_close(&p);
    return s;
}

static char *device_of(const char *device, int worker, int workers, int threads)
{
    es_str s = ES_STR_INIT;
    if (!strcmp(device, "cpu")) {
        int all = threads > 0 ? threads : (int)sysconf(_SC_NPROCESSORS_ONLN);
        es_str_addf(&s, "cpu:%d", all / workers > 0 ? all / workers : 1);
    } else if (!strcmp(device, "cuda")) {
        es_str_addf(&s, "cuda:%d", worker);
    } else {
        es_str_add(&s, device);
    }
    return es_str_take(&s);
}

es_status cl_local_start(cl_local *l, int workers, int threads, const char *device, es_error *err)
{
    child *c = &l->coordinator;
    c->program = "espalierd";
    snprintf(c->name, sizeof c->name, "espalierd");
    c->log = join(l->dir, "espalierd.log");
    c->argument[0] = es_xstrdup("-c");
    c->argument[1] = es_xstrdup(l->config);
    ES_RETURN(start_child(l, c, err));
    ES_RETURN(wait_ready(l, err));
    for (int i = 0; i < workers; i++) {
        c = &l->worker[i];
        l->workers = i + 1;
        char name[64];
        snprintf(name, sizeof name, "worker-%d.log", i + 1);
        c->program = "espalier-worker";
        c->log = join(l->dir, name);
        snprintf(c->name, sizeof c->name, "worker %d", i + 1);
        c->argument[0] = es_xstrdup(l->control);
        c->argument[1] = es_xstrdup("--device");
        c->argument[2] = device_of(device, i, workers, threads);
        c->argument[3] = es_xstrdup("--name");
        c->argument[4] = es_xstrdup(c->name);
        ES_RETURN(start_child(l, c, err));
    }
    return ES_OK;
}

static void signal_child(const child *c, int number)
{
    if (c->pid)
        kill(c->pid, number);
}

static bool wait_gone(child *list, int n, int64_t until)
{
    for (;;) {
        int left = 0, status;
        for (int i = 0; i < n; i++)
            left += list[i].pid && !reaped(&list[i], &status);
        if (left == 0 || now_ms() > until)
            return left == 0;
        pause_ms(20);
    }
}

void cl_local_stop(cl_local *l)
{
    for (int i = 0; i < l->workers; i++)
        signal_child(&l->worker[i], SIGTERM);
    if (!wait_gone(l->worker, l->workers, now_ms() + END_MS)) {
        for (int i = 0; i < l->workers; i++)
            signal_child(&l->worker[i], SIGKILL);
        wait_gone(l->worker, l->workers, now_ms() + END_MS);
    }
    signal_child(&l->coordinator, SIGTERM);
    if (!wait_gone(&l->coordinator, 1, now_ms() + END_MS)) {
        signal_child(&l->coordinator, SIGKILL);
        wait_gone(&l->coordinator, 1, now_ms() + END_MS);
    }
}

static void child_free(child *c)
{
    free(c->log);
    for (int i = 0; i < 8; i++)
        free(c->argument[i]);
}

void cl_local_close(cl_local **out)
{
    cl_local *l = *out;
    if (!l)
        return;
    cl_local_stop(l);
    child_free(&l->coordinator);
    for (int i = 0; i < l->workers; i++)
        child_free(&l->worker[i]);
    if (l->own_sockets)
        rmdir(l->sockets);
    if (l->lock >= 0)
        close(l->lock);
    free(l->dir);
    free(l->sockets);
    free(l->control);
    free(l->data);
    free(l->config);
    free(l->programs);
    free(l);
    *out = NULL;
}

const char *cl_local_endpoint(const cl_local *l) { return l->control; }
const char *cl_local_data_endpoint(const cl_local *l) { return l->data; }
