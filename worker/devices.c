#include "worker/devices.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "kernels/device/device.h"

enum { EXIT_USAGE = 2, FIRST_MS = 1000, LONGEST_MS = 30000, LIVED_MS = 60000 };

static es_status add(wk_devices *d, const char *name, size_t n, es_error *err)
{
    if (n == 0 || n >= WK_DEVICE_NAME || d->n == WK_DEVICES_MAX)
        return es_fail(err, ES_INVALID, "--device",
                       "\"%.*s\": allowed are auto, or up to %d names such as cuda:0,cuda:1 or cpu:4", (int)n, name,
                       WK_DEVICES_MAX);
    snprintf(d->name[d->n], WK_DEVICE_NAME, "%.*s", (int)n, name);
    for (int i = 0; i < d->n; i++)
        if (strcmp(d->name[i], d->name[d->n]) == 0)
            return es_fail(err, ES_INVALID, "--device", "%s is there twice: one worker has a device to itself",
                           d->name[i]);
    d->n++;
    return ES_OK;
}

es_status wk_devices_read(const char *text, wk_devices *out, es_error *err)
{
    out->n = 0;
    if (strcmp(text, "auto") == 0) {
        int gpus = kn_device_gpus();
        for (int i = 0; i < gpus && i < WK_DEVICES_MAX; i++) {
            char name[WK_DEVICE_NAME];
            es_error why = {0};
            if (kn_device_gpu_fit(i, &why) != ES_OK) {
                es_log(ES_LOG_WARN, "passed over: %s", why.text);
                continue;
            }
            snprintf(name, sizeof name, "cuda:%d", i);
            ES_RETURN(add(out, name, strlen(name), err));
        }
        return out->n > 0 ? ES_OK : add(out, "cpu", 3, err);
    }
    for (const char *p = text;; p++) {
        size_t n = strcspn(p, ",");
        ES_RETURN(add(out, p, n, err));
        p += n;
        if (!*p)
            return ES_OK;
    }
}

typedef struct child {
    const char *device;
    pid_t pid; /* 0: not running */
    int64_t started_ms, due_ms, wait_ms;
    bool finished; /* for good */
} child;

static int wake_fd = -1;
static volatile sig_atomic_t stops;

static void on_signal(int number)
{
    uint64_t one = 1;
    int e = errno;
    if (number != SIGCHLD)
        stops = stops + 1;
    if (write(wake_fd, &one, sizeof one) < 0)
        _exit(EXIT_FAILURE);
    errno = e;
}

/* The given arguments with this device; what is a place or a name becomes this device's own. Caller frees the array. */
static char **arguments_of(const char *device, int argc, char **argv)
{
    char **out = es_xcalloc((size_t)argc + 3, sizeof *out);
    int n = 0;
    for (int i = 0; i < argc; i++) {
        static const char *const own[] = {"--name", "--cache"};
        out[n++] = argv[i];
        for (int k = 0; k < 2; k++) {
            size_t len = strlen(own[k]);
            es_str s = ES_STR_INIT;
            if (strncmp(argv[i], own[k], len) == 0 && argv[i][len] == '=') {
                es_str_addf(&s, "%s%c%s", argv[i], k ? '/' : ':', device);
                out[n - 1] = es_str_take(&s);
            } else if (strcmp(argv[i], own[k]) == 0 && i + 1 < argc) {
                es_str_addf(&s, "%s%c%s", argv[++i], k ? '/' : ':', device);
                out[n++] = es_str_take(&s);
            }
        }
    }
    out[n++] = "--device"; /* the last one counts */
    out[n++] = (char *)(uintptr_t)device;
    return out;
}

static void start(child *c, int argc, char **argv, int64_t now)
{
    char **arguments = arguments_of(c->device, argc, argv);
    pid_t parent = getpid();
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all,
                &before); /* a stop sent to the child at once is not lost in this process's handler */
    c->started_ms = now;
    c->pid = fork();
    if (c->pid == 0) {
        signal(SIGTERM, SIG_DFL);
        signal(SIGINT, SIG_DFL);
        signal(SIGCHLD, SIG_DFL);
        sigprocmask(SIG_SETMASK, &before, NULL);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() == parent)
            execv("/proc/self/exe", arguments);
        _exit(EXIT_FAILURE);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (c->pid < 0) {
        es_log(ES_LOG_ERROR, "cannot start a process for %s: %m", c->device);
        c->pid = 0;
        c->due_ms = now + c->wait_ms;
    }
    free(arguments);
}

/* A process has ended: for good, or to be started again. Returns its exit status when that ends everything, else 0. */
static int ended(child *c, int status, int64_t now)
{
    /* Told to stop before it could answer, a process had nothing in hand. */
    bool early = stops > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : early ? EXIT_SUCCESS : EXIT_FAILURE;
    c->pid = 0;
    c->finished = stops > 0 || code == EXIT_SUCCESS || code == EXIT_USAGE;
    if (c->finished)
        return code;
    if (now - c->started_ms >= LIVED_MS)
        c->wait_ms = FIRST_MS;
    c->due_ms = now + c->wait_ms;
    es_log(ES_LOG_ERROR, "the worker on %s ended (%s %d); another one starts in %d s", c->device,
           WIFSIGNALED(status) ? "signal" : "exit", WIFSIGNALED(status) ? WTERMSIG(status) : code,
           (int)(c->wait_ms / 1000));
    c->wait_ms = 2 * c->wait_ms < LONGEST_MS ? 2 * c->wait_ms : LONGEST_MS;
    return 0;
}

static void tell_all(const child *c, int n)
{
    for (int i = 0; i < n; i++)
        if (c[i].pid > 0)
            kill(c[i].pid, SIGTERM);
}

/* Starts what is due. Returns how long until the next is, -1: none is waited for; *left: processes that run or will. */
static int start_due(child *c, int n, int argc, char **argv, int *left)
{
    int64_t now = es_clock_mono_ms(es_clock_system()), next = -1;
    *left = 0;
    for (int i = 0; i < n; i++) {
        if (c[i].pid == 0 && !c[i].finished && stops > 0)
            c[i].finished = true;
        if (c[i].pid == 0 && !c[i].finished && c[i].due_ms <= now)
            start(&c[i], argc, argv, now);
        *left += !c[i].finished;
        if (c[i].pid == 0 && !c[i].finished && (next < 0 || c[i].due_ms - now < next))
            next = c[i].due_ms > now ? c[i].due_ms - now : 1;
    }
    return (int)next;
}

int wk_devices_run(const wk_devices *d, int argc, char **argv)
{
    child c[WK_DEVICES_MAX];
    int worst = EXIT_SUCCESS, told = 0, left;
    memset(c, 0, sizeof c);
    for (int i = 0; i < d->n; i++)
        c[i] = (child){.device = d->name[i], .wait_ms = FIRST_MS};
    wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct sigaction sa = {.sa_handler = on_signal};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGCHLD, &sa, NULL);
    for (;;) {
        int wait_ms = start_due(c, d->n, argc, argv, &left), status;
        if (left == 0)
            break;
        struct pollfd p = {.fd = wake_fd, .events = POLLIN};
        uint64_t n;
        if (poll(&p, 1, wait_ms) > 0 && read(wake_fd, &n, sizeof n) < 0)
            continue;
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
            for (int i = 0; i < d->n; i++) {
                if (c[i].pid != pid)
                    continue;
                int code = ended(&c[i], status, es_clock_mono_ms(es_clock_system()));
                worst = code > worst ? code : worst;
                if (code == EXIT_USAGE)
                    stops = stops + 1;
            }
        }
        for (; told < stops; told++) /* after those that ended: one of them may be why */
            tell_all(c, d->n);
    }
    close(wake_fd);
    return worst;
}
