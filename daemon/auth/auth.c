#include "daemon/auth/auth.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "daemon/auth/authorized.h"
#include "daemon/wire/ipc.h"

enum { PATH_BYTES = 600, HANDSHAKE_MS = 10000, ZAP_FRAMES = 8, ZAP_FRAME_MAX = 256, LOG_EVERY_MS = 1000 };

struct dm_auth {
    bool curve, insecure;
    char file[PATH_BYTES]; /* authorized_keys */
    dm_key_pair server;
    pthread_rwlock_t lock; /* of the table */
    dm_auth_table table;
    void *zap;
    int end; /* eventfd */
    pthread_t thread;
    bool started;
    atomic_uint_fast64_t refused;
    atomic_bool took_away;
    int64_t logged_ms;
};

/* ---- key files */

/* authorized_keys.made is authorized_keys before its name: written first, so that a crash on the way is known from a file that somebody took away on purpose. */
static void made_path(const char *file, char out[PATH_BYTES + 8]) { snprintf(out, PATH_BYTES + 8, "%s.made", file); }

static es_status make_admin(const char *dir, const char *file, es_error *err)
{
    dm_key_pair admin;
    es_str text = ES_STR_INIT;
    char hex[DM_KEY_HEX], made[PATH_BYTES + 8];
    made_path(file, made);
    unlink(made);
    dm_key_make(&admin);
    dm_key_hex(admin.pub, hex);
    es_str_addf(
        &text,
        "# Who may connect: ROLE NAME KEY, one a line; ROLE is client, worker or admin. `espalier keygen` prints "
        "such a line.\n# Read at the start and on SIGHUP.\nadmin admin %s\n",
        hex);
    es_status s = dm_secret_file_write(made, text.p, 0600, err);
    es_str_free(&text);
    if (s == ES_OK)
        s = dm_key_write(dir, DM_ROLE_ADMIN, "admin", &admin, err);
    if (s == ES_OK && rename(made, file) != 0)
        s = es_fail_errno(err, file, "cannot be given its name");
    return s;
}

/* A start that was killed in make_admin after the admin's key: it is that very key which is authorised. */
static es_status finish_admin(const char *dir, const char *file, const dm_key_pair *admin, es_error *err)
{
    char made[PATH_BYTES + 8];
    dm_auth_table t;
    made_path(file, made);
    if (es_file_exists(file) || !es_file_exists(made))
        return ES_OK;
    ES_RETURN(dm_auth_table_read(made, &t, err));
    const dm_key_line *k = dm_auth_table_find(&t, admin->pub);
    bool same = k && k->role == DM_ROLE_ADMIN;
    dm_auth_table_free(&t);
    if (!same)
        return es_fail(err, ES_INVALID, made, "is of another key than %s/admin.key: remove one of the two", dir);
    if (rename(made, file) != 0)
        return es_fail_errno(err, file, "cannot be given its name");
    es_log(ES_LOG_INFO, "authorised the admin's key in %s: the start that made it was killed", dir);
    return ES_OK;
}

/* server.pub is for others: a wrong one keeps them out, and they could not say why. */
static void look_at_server_pub(const dm_auth *a, const char *dir)
{
    char path[PATH_BYTES];
    dm_key_line line;
    es_error why;
    snprintf(path, sizeof path, "%s/server.pub", dir);
    if (dm_key_read_public(path, &line, &why) != ES_OK)
        es_log_error(ES_LOG_WARN, "the server's public file is of no use to peers", &why);
    else if (memcmp(line.pub, a->server.pub, DM_KEY_BYTES) != 0)
        es_log(ES_LOG_WARN,
               "%s is not the public half of server.key: peers that have it are refused; remove it, and the next "
               "start makes it",
               path);
}

/* What is not there is made: the server's pair; and with a new folder, an admin's pair that is authorised. What a killed start left half made is completed. */
static es_status auth_files(dm_auth *a, const char *dir, es_error *err)
{
    char path[PATH_BYTES];
    dm_key_pair admin;
    bool made;
    if ((size_t)snprintf(a->file, sizeof a->file, "%s/authorized_keys", dir) >= sizeof a->file)
        return es_fail(err, ES_INVALID, "keys", "the folder's path is too long");
    snprintf(path, sizeof path, "%s/server.key", dir);
    if (!es_file_exists(path)) {
        dm_key_make(&a->server);
        ES_RETURN(dm_key_write(dir, DM_ROLE_SERVER, "espalierd", &a->server, err));
        es_log(ES_LOG_INFO, "made the server's key pair in %s", dir);
    }
    ES_RETURN(dm_key_read_secret(path, &a->server, err));
    ES_RETURN(dm_key_complete(dir, DM_ROLE_SERVER, "espalierd", &a->server, &made, err));
    if (made)
        es_log(ES_LOG_INFO, "made server.pub in %s from server.key: it was missing", dir);
    look_at_server_pub(a, dir);
    snprintf(path, sizeof path, "%s/admin.key", dir);
    if (!es_file_exists(a->file) && !es_file_exists(path)) {
        ES_RETURN(make_admin(dir, a->file, err));
        es_log(ES_LOG_INFO, "made an admin's key pair in %s, and authorised it", dir);
    } else if (!es_file_exists(a->file)) {
        ES_RETURN(dm_key_read_secret(path, &admin, err));
        ES_RETURN(dm_key_complete(dir, DM_ROLE_ADMIN, "admin", &admin, &made, err));
        ES_RETURN(finish_admin(dir, a->file, &admin, err));
    }
    return dm_auth_table_read(a->file, &a->table, err);
}

es_status dm_auth_reload(dm_auth *a, es_error *err)
{
    dm_auth_table t, old;
    if (!a->curve)
        return ES_OK;
    ES_RETURN(dm_auth_table_read(a->file, &t, err));
    for (int i = 0; i < a->table.n; i++) { /* only this function changes the table */
        const dm_key_line *k = dm_auth_table_find(&t, a->table.keys[i].pub);
        if (!k || k->role != a->table.keys[i].role)
            atomic_store(&a->took_away, true);
    }
    pthread_rwlock_wrlock(&a->lock);
    old = a->table;
    a->table = t;
    pthread_rwlock_unlock(&a->lock);
    es_log(ES_LOG_INFO, "%s: %d keys, before %d", a->file, t.n, old.n);
    dm_auth_table_free(&old);
    return ES_OK;
}

bool dm_auth_took_away(dm_auth *a) { return atomic_exchange(&a->took_away, false); }

static bool auth_find(dm_auth *a, const uint8_t pub[DM_KEY_BYTES], dm_key_line *out)
{
    pthread_rwlock_rdlock(&a->lock);
    const dm_key_line *k = dm_auth_table_find(&a->table, pub);
    if (k)
        *out = *k;
    pthread_rwlock_unlock(&a->lock);
    return k != NULL;
}

/* ---- the handshake: ZAP, https://rfc.zeromq.org/spec/27 */

/* One a second, with how many there were: a stranger cannot fill the log. */
static void log_refusal(dm_auth *a, const char *domain, const char *address, const uint8_t *key, const char *why)
{
    char hex[DM_KEY_HEX] = "none";
    uint64_t n = atomic_fetch_add(&a->refused, 1) + 1;
    int64_t now = es_clock_mono_ms(es_clock_system());
    if (now - a->logged_ms < LOG_EVERY_MS && a->logged_ms)
        return;
    a->logged_ms = now;
    if (key)
        dm_key_hex(key, hex);
    es_log(ES_LOG_WARN, "refused %s from %s: %s, key %s (%" PRIu64 " refused so far)", domain, address, why, hex, n);
}

typedef struct zap_frame {
    char bytes[ZAP_FRAME_MAX + 1];
    size_t n;
} zap_frame;

/* Frames of one request; how many, or -1 when none is there. Longer ones are cut: no field we use is long. */
static int zap_receive(dm_auth *a, zap_frame f[ZAP_FRAMES])
{
    int n = 0, more = 1;
    while (more) {
        zap_frame *to = &f[n < ZAP_FRAMES ? n : ZAP_FRAMES - 1];
        int got = zmq_recv(a->zap, to->bytes, ZAP_FRAME_MAX, ZMQ_DONTWAIT);
        if (got < 0)
            return -1;
        to->n = (size_t)got < ZAP_FRAME_MAX ? (size_t)got : ZAP_FRAME_MAX;
        to->bytes[to->n] = 0;
        n++;
        size_t size = sizeof more;
        if (zmq_getsockopt(a->zap, ZMQ_RCVMORE, &more, &size) != 0)
            return -1;
    }
    return n;
}

/* version, request id, domain, address, routing id, mechanism, credentials */
static void zap_answer(dm_auth *a, zap_frame f[ZAP_FRAMES], int n)
{
    bool well = n == 7 && !strcmp(f[0].bytes, "1.0") && !strcmp(f[5].bytes, "CURVE") && f[6].n == DM_KEY_BYTES;
    dm_key_line key;
    char user[DM_KEY_HEX] = "";
    const char *domain = n > 2 ? f[2].bytes : "", *address = n > 3 ? f[3].bytes : "";
    bool ipc = n == 6 && !strcmp(f[5].bytes, "NULL") && dm_ipc_peer_is_us(address);
    bool good = ipc || (well && auth_find(a, (const uint8_t *)f[6].bytes, &key));
    if (!good)
        log_refusal(a, domain, address, well ? (const uint8_t *)f[6].bytes : NULL, well ? "unknown key" : "no CURVE");
    else if (well && !strcmp(domain, "status") && !dm_role_may_watch(key.role)) {
        log_refusal(a, domain, address, key.pub, "a worker's key");
        good = false;
    }
    if (good && well)
        dm_key_hex(key.pub, user);
    const char *code = good ? "200" : "400", *text = good ? "OK" : "unknown key";
    zmq_send(a->zap, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(a->zap, f[1].bytes, n > 1 ? f[1].n : 0, ZMQ_SNDMORE);
    zmq_send(a->zap, code, 3, ZMQ_SNDMORE);
    zmq_send(a->zap, text, strlen(text), ZMQ_SNDMORE);
    zmq_send(a->zap, user, strlen(user), ZMQ_SNDMORE);
    zmq_send(a->zap, "", 0, 0);
}

static void *zap_main(void *ctx)
{
    dm_auth *a = ctx;
    zap_frame f[ZAP_FRAMES];
    for (;;) {
        zmq_pollitem_t items[] = {{.socket = a->zap, .events = ZMQ_POLLIN}, {.fd = a->end, .events = ZMQ_POLLIN}};
        if (zmq_poll(items, 2, -1) < 0 && errno == ETERM)
            return NULL;
        if (items[1].revents)
            return NULL;
        for (int n; (n = zap_receive(a, f)) >= 0;)
            zap_answer(a, f, n);
    }
}

static es_status zap_start(dm_auth *a, void *zmq, es_error *err)
{
    int linger = 0;
    a->zap = zmq_socket(zmq, ZMQ_REP);
    a->end = eventfd(0, EFD_CLOEXEC);
    if (!a->zap || a->end < 0 || zmq_setsockopt(a->zap, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_bind(a->zap, "inproc://zeromq.zap.01") != 0)
        return es_fail(err, ES_IO, "keys", "cannot serve handshakes: %s", zmq_strerror(errno));
    if (pthread_create(&a->thread, NULL, zap_main, a) != 0)
        return es_fail(err, ES_NO_MEMORY, NULL, "no more threads");
    a->started = true;
    return ES_OK;
}

/* ---- life */

es_status dm_auth_open(const dm_auth_options *o, dm_auth **out, es_error *err)
{
    dm_auth *a = *out = es_xcalloc(1, sizeof *a);
    es_status s = ES_OK;
    a->end = -1;
    a->curve = o->curve && !o->insecure;
    a->insecure = o->insecure;
    pthread_rwlock_init(&a->lock, NULL);
    if (!a->curve)
        return ES_OK;
    if (!zmq_has("curve")) {
        s = es_fail(
            err, ES_UNSUPPORTED, "libzmq",
            "was built without CURVE (libsodium), so tcp endpoints cannot be protected: install a libzmq with it "
            "(Debian's has it), or use ipc:// endpoints, or start with --insecure inside a network you trust");
        goto fail;
    }
    ES_GOTO(auth_files(a, o->keys, err));
    ES_GOTO(zap_start(a, o->zmq, err));
    return ES_OK;
fail:
    dm_auth_close(out);
    return s;
}

void dm_auth_close(dm_auth **pa)
{
    dm_auth *a = *pa;
    if (!a)
        return;
    if (a->started) {
        uint64_t one = 1;
        ES_ASSERT(write(a->end, &one, sizeof one) == sizeof one);
        pthread_join(a->thread, NULL);
    }
    if (a->zap)
        zmq_close(a->zap);
    if (a->end >= 0)
        close(a->end);
    dm_auth_table_free(&a->table);
    pthread_rwlock_destroy(&a->lock);
    free(a);
    *pa = NULL;
}

uint64_t dm_auth_refused(const dm_auth *a) { return atomic_load(&a->refused); }

/* ---- sockets */

static es_status auth_listen(void *socket, const char *endpoint, char bound[256], es_error *err)
{
    size_t n = 256;
    if (zmq_bind(socket, endpoint) != 0) {
        int e = errno;
        if (e == EADDRINUSE)
            return es_fail(err, ES_BUSY, endpoint,
                           "the address is in use: another program, perhaps another espalierd, listens there");
        return es_fail(err, e == EACCES ? ES_DENIED : ES_INVALID, endpoint, "cannot listen there: %s", zmq_strerror(e));
    }
    if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, bound, &n) != 0)
        snprintf(bound, 256, "%s", endpoint);
    if (strncmp(bound, "tcp://0.0.0.0:", 14) == 0) {
        char port[64];
        snprintf(port, sizeof port, "%s", bound + 14);
        snprintf(bound, 256, "tcp://*:%s", port);
    }
    return ES_OK;
}

es_status dm_auth_bind(dm_auth *a, void *socket, const char *domain, const char *endpoint, char bound[256],
                       es_error *err)
{
    bool tcp = strncmp(endpoint, "tcp://", 6) == 0;
    int on = tcp && a->curve, handshake = HANDSHAKE_MS, yes = 1, idle = 60;
    /* A listener keeps the options of the moment it was bound, so one socket may have both kinds. */
    bool good = zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &on, sizeof on) == 0 &&
                zmq_setsockopt(socket, ZMQ_HANDSHAKE_IVL, &handshake, sizeof handshake) == 0 &&
                zmq_setsockopt(socket, ZMQ_TCP_KEEPALIVE, &yes, sizeof yes) == 0 &&
                zmq_setsockopt(socket, ZMQ_TCP_KEEPALIVE_IDLE, &idle, sizeof idle) == 0;
    if (good && on) /* once set, a domain stays: later ipc listeners of this socket ask the ZAP thread too */
        good = zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, domain, strlen(domain)) == 0 &&
               zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, a->server.secret, DM_KEY_BYTES) == 0;
    if (!good)
        return es_fail(err, ES_IO, endpoint, "cannot set the socket up: %s", zmq_strerror(errno));
    if (tcp && !on)
        es_log(
            ES_LOG_WARN,
            "INSECURE: %s takes and gives everything in clear, from and to everybody who can connect; only for tests "
            "and networks where you trust every machine and user",
            endpoint);
    if (!tcp)
        ES_RETURN(dm_ipc_check(endpoint, err));
    ES_RETURN(auth_listen(socket, endpoint, bound, err));
    return tcp ? ES_OK : dm_ipc_guard(endpoint, err);
}

bool dm_auth_who(dm_auth *a, zmq_msg_t *message, dm_who *out)
{
    /* ZeroMQ notes what ZAP and the kernel say before what the peer says of itself, and the first word stands. */
    const char *user = zmq_msg_gets(message, "User-Id"), *from;
    uint8_t pub[DM_KEY_BYTES];
    dm_key_line key;
    *out = (dm_who){0};
    if (user && user[0]) {
        if (!dm_key_parse(user, strlen(user), pub) || !auth_find(a, pub, &key)) {
            atomic_fetch_add(&a->refused, 1);
            snprintf(out->name, sizeof out->name, "a.key.that.was.taken.back");
            return true;
        }
        out->role = key.role;
        snprintf(out->name, sizeof out->name, "%s", key.name);
        return true;
    }
    from = zmq_msg_gets(message, "Peer-Address");
    if (!dm_ipc_peer_is_us(from) && !a->insecure) {
        atomic_fetch_add(&a->refused, 1);
        return false;
    }
    *out = dm_who_local();
    return true;
}
