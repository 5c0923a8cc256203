/* espalier-worker: the program around worker.h. */
#include "worker/worker.h"

#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "base/version.h"
#include "worker/devices.h"
#include "worker/loglines.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { EXIT_USAGE = 2 };

static const char help[] =
    "usage: espalier-worker ENDPOINT [options]\n"
    "\n"
    "Works for the coordinator (espalierd) at ENDPOINT, tcp://HOST:PORT or ipc://PATH: one "
    "worker per GPU, or one per CPU host.\n"
    "It connects, and connects again whenever the coordinator was away. SIGTERM hands the job "
    "in hand back and ends it.\n"
    "\n"
    "  --device NAME       cpu, cpu:THREADS, cuda:NUMBER (default cpu); several with commas, or auto for\n"
    "                      every GPU: a process each, started again when it dies\n"
    "  --name NAME         shown to people (default host:pid:device)\n"
    "  --cache DIR         keep fetched weights here, so that they are fetched once\n"
    "  --cache-size BYTES  at most so much (default 2G)\n"
    "  --address ADDRESS   where other workers reach this one when they train together (default: the\n"
    "                      address towards the coordinator, 127.0.0.1 for one on this host)\n"
    "  --slots N           jobs at once, side by side on the device while the coordinator\n"
    "                      expects their memory to fit, 1 to 64 (default 1)\n"
    "  --key FILE          tcp: this worker's secret key (default ESPALIER_KEY, else "
    "~/.config/espalier/worker.key)\n"
    "  --server-key FILE   tcp: the coordinator's public key (default ESPALIER_SERVER_KEY, else "
    "server.pub beside the key)\n"
    "  --insecure          tcp without keys, in clear\n"
    "  --log LEVEL         debug, info, warn, error, off (default info)\n"
    "  --log-format FORMAT text or json, one object a line (default text)\n"
    "  --help, --version\n"
    "\n"
    "exit status: 0 stopped cleanly, 1 failed, 2 wrong usage\n";

typedef struct arguments {
    wk_options o;
    es_log_level level;
} arguments;

static int usage(const char *what, const char *value)
{
    fprintf(stderr, "espalier-worker: %s%s%s (see espalier-worker --help)\n", what, value ? ": " : "",
            value ? value : "");
    return EXIT_USAGE;
}

/* -1: go on; otherwise the exit status. */
static int read_arguments(int argc, char **argv, arguments *a)
{
    enum {
        DEVICE = 256,
        NAME,
        CACHE,
        CACHE_SIZE,
        ADDRESS,
        SLOTS,
        KEY,
        SERVER_KEY,
        INSECURE,
        LOG,
        LOG_FORMAT,
        HELP,
        VERSION
    };
    static const struct option options[] = {
        {"device", required_argument, NULL, DEVICE},
        {"name", required_argument, NULL, NAME},
        {"cache", required_argument, NULL, CACHE},
        {"cache-size", required_argument, NULL, CACHE_SIZE},
        {"address", required_argument, NULL, ADDRESS},
        {"slots", required_argument, NULL, SLOTS},
        {"key", required_argument, NULL, KEY},
        {"server-key", required_argument, NULL, SERVER_KEY},
        {"insecure", no_argument, NULL, INSECURE},
        {"log", required_argument, NULL, LOG},
        {"log-format", required_argument, NULL, LOG_FORMAT},
        {"help", no_argument, NULL, HELP},
        {"version", no_argument, NULL, VERSION},
        {NULL, 0, NULL, 0},
    };
    int64_t n;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case DEVICE: a->o.device = optarg; break;
        case NAME: a->o.name = optarg; break;
        case CACHE: a->o.cache = optarg; break;
        case CACHE_SIZE:
            if (!es_str_to_i64(optarg, true, &n) || n < 1 << 20)
                return usage("--cache-size takes a number of bytes of at least 1M", optarg);
            a->o.cache_bytes = (uint64_t)n;
            break;
        case ADDRESS: a->o.address = optarg; break;
        case SLOTS:
            if (!es_str_to_i64(optarg, false, &n) || n < 1 || n > 64)
                return usage("--slots takes a number from 1 to 64", optarg);
            a->o.slots = (int)n;
            break;
        case KEY: a->o.key = optarg; break;
        case SERVER_KEY: a->o.server_key = optarg; break;
        case INSECURE: a->o.insecure = true; break;
        case LOG:
            if (!es_log_level_parse(optarg, &a->level))
                return usage("--log takes debug, info, warn, error or off", optarg);
            break;
        case LOG_FORMAT:
            if (strcmp(optarg, "text") != 0 && strcmp(optarg, "json") != 0)
                return usage("--log-format takes text or json", optarg);
            es_log_json(optarg[0] == 'j');
            break;
        case 'h':
        case HELP: fputs(help, stdout); return EXIT_SUCCESS;
        case VERSION: printf("espalier-worker %s\n", es_version()); return EXIT_SUCCESS;
        default: return usage("unknown option or missing value", NULL);
        }
    }
    if (optind == argc)
        return usage("ENDPOINT is missing", NULL);
    if (optind + 1 < argc)
        return usage("too many arguments", argv[optind + 1]);
    a->o.endpoint = argv[optind];
    return -1;
}

/* A handler and not a blocked signal with a signalfd: the BLAS library starts threads before main, which would still take the signal. */
static int stop_fd = -1;
static void on_signal(int number)
{
    (void)number;
    uint64_t one = 1;
    int e = errno;
    if (write(stop_fd, &one, sizeof one) < 0)
        _exit(EXIT_FAILURE);
    errno = e;
}

/* OpenMP's waiting threads spin for about a millisecond by default; when other programs want the cores too, every one of a step's thousands of small parallel loops
 * then waits for a thread that is not running (on a busy machine one training run went at 14 images/s instead of 273). A short spin costs nothing when the cores are free. The
 * runtime reads the variable when it is loaded, so the program starts itself again. */
static void spin_briefly(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY") || setenv("GOMP_SPINCOUNT", "10000", 1) != 0)
        return;
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n > 0) {
        path[n] = 0;
        execv(path, argv); /* where that fails, it works all the same, only slower */
    }
}

enum { DESCRIPTORS = 64 }; /* two connections with their threads, and a data file or two */

int main(int argc, char **argv)
{
    spin_briefly(argv);
    arguments a = {.o = wk_options_default(), .level = ES_LOG_INFO};
    int code = read_arguments(argc, argv, &a);
    if (code >= 0)
        return code;
    es_log_init("worker", a.level);
    wk_loglines_start();
    if (sodium_init() < 0) {
        fprintf(stderr, "espalier-worker: libsodium does not start\n");
        return EXIT_FAILURE;
    }
    es_error err = {0};
    wk_devices devices;
    char line[700];
    if (wk_devices_read(a.o.device, &devices, &err) != ES_OK) {
        fprintf(stderr, "espalier-worker: %s\n", es_error_line(&err, line, sizeof line));
        return EXIT_USAGE;
    }
    if (devices.n > 1)
        return wk_devices_run(&devices, argc, argv);
    a.o.device = devices.name[0];
    int signals = stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    es_status s = es_file_limit(DESCRIPTORS, &err);
    if (s == ES_OK)
        s = wk_run(&a.o, signals, &err);
    if (s == ES_OK)
        return EXIT_SUCCESS;
    fprintf(stderr, "espalier-worker: %s\n", es_error_line(&err, line, sizeof line));
    return s == ES_INVALID ? EXIT_USAGE : EXIT_FAILURE;
}
