/* Keys, roles and files: what authorized_keys may hold, what a role may ask for, whom a socket believes. */
#include "daemon/auth/auth.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "daemon/auth/authorized.h"
#include "daemon/wire/ipc.h"
#include "daemon/wire/peer.h"
#include "tests/check_main.h"

#define KEY_A "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define KEY_B "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"

static es_status parse(const char *text, dm_auth_table *t, es_error *e)
{
    return dm_auth_table_parse("authorized_keys", text, strlen(text), t, e);
}

START_TEST(authorized_keys_is_read)
    {
        dm_auth_table t;
        es_error e;
        uint8_t pub[DM_KEY_BYTES];
        ck_assert_ok_err(parse("# people\n\nclient ann " KEY_B "  # laptop\r\n  worker gpu-1@rack.2 " KEY_A, &t, &e),
                         &e);
        ck_assert_int_eq(t.n, 2);
        ck_assert(dm_key_parse(KEY_B, 64, pub));
        const dm_key_line *k = dm_auth_table_find(&t, pub);
        ck_assert_ptr_nonnull(k);
        ck_assert_str_eq(k->name, "ann");
        ck_assert_int_eq(k->role, DM_ROLE_CLIENT);
        pub[31] ^= 1;
        ck_assert_ptr_null(dm_auth_table_find(&t, pub));
        dm_auth_table_free(&t);
        ck_assert_ok(parse("", &t, &e));
        ck_assert_int_eq(t.n, 0);
        ck_assert_ptr_null(dm_auth_table_find(&t, pub));
        ck_assert_ok(parse("client ann " KEY_A "\nclient ann " KEY_B "\n", &t, &e)); /* a key being replaced */
        dm_auth_table_free(&t);
    }
END_TEST

START_TEST(bad_lines_say_where)
    {
        static const struct {
            const char *text, *where, *says;
        } bad[] = {
            {"client ann " KEY_A "\nroot bob " KEY_B "\n", "authorized_keys:2", "allowed are client, worker and admin"},
            {"server espalierd " KEY_A, "authorized_keys:1", "allowed are client, worker and admin"},
            {"\n\nclient ann 00\n", "authorized_keys:3", "64 hexadecimal digits"},
            {"client ann " KEY_A "0\n", "authorized_keys:1", "has 65 characters"},
            {"client ann\n", "authorized_keys:1", "a line is: ROLE NAME KEY"},
            {"client\n", "authorized_keys:1", "the name must have"},
            {"client an/n " KEY_A, "authorized_keys:1", "letters, digits"},
            {"client ann " KEY_A " " KEY_B, "authorized_keys:1", "more after the key"},
            {"client ann " KEY_A "\nworker bob " KEY_A "\n", "authorized_keys", "have the same key"},
            {"client ann " KEY_A "\nadmin ann " KEY_B "\n", "authorized_keys", "a name has one role"},
        };
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            dm_auth_table t;
            es_error e;
            ck_assert_status(parse(bad[i].text, &t, &e), ES_INVALID);
            ck_assert_msg(strncmp(e.where, bad[i].where, strlen(bad[i].where)) == 0, "%s: %s", e.where, e.text);
            ck_assert_has(e.text, bad[i].says);
            ck_assert_ptr_null(t.keys);
        }
    }
END_TEST

START_TEST(key_files_are_private)
    {
        dm_key_pair k, again;
        dm_key_line line;
        es_error e;
        struct stat st;
        char dir[600], key[700], pub[700];
        snprintf(dir, sizeof dir, "%s/new/keys", es_test_dir());
        snprintf(key, sizeof key, "%s/worker.key", dir);
        snprintf(pub, sizeof pub, "%s/worker.pub", dir);
        dm_key_make(&k);
        ck_assert_ok_err(dm_key_write(dir, DM_ROLE_WORKER, "gpu-1", &k, &e), &e);
        ck_assert_int_eq(stat(dir, &st), 0);
        ck_assert_uint_eq(st.st_mode & 0777, 0700);
        ck_assert_int_eq(stat(key, &st), 0);
        ck_assert_uint_eq(st.st_mode & 0777, 0600);
        ck_assert_status(dm_key_write(dir, DM_ROLE_WORKER, "gpu-1", &k, &e), ES_EXISTS);
        ck_assert_ok_err(dm_key_read_secret(key, &again, &e), &e);
        ck_assert_int_eq(memcmp(&k, &again, sizeof k), 0); /* the public half is derived from the secret one */
        ck_assert_ok_err(dm_key_read_public(pub, &line, &e), &e);
        ck_assert_int_eq(memcmp(line.pub, k.pub, DM_KEY_BYTES), 0);
        ck_assert_int_eq(line.role, DM_ROLE_WORKER);
        ck_assert_status(dm_key_read_secret(pub, &again, &e), ES_DENIED); /* 0644: no secret can be in there */
        ck_assert_int_eq(chmod(key, 0640), 0);
        ck_assert_status(dm_key_read_secret(key, &again, &e), ES_DENIED);
        ck_assert_has(e.text, "chmod 600");
        ck_assert_int_eq(chmod(pub, 0666), 0);
        ck_assert_status(dm_key_read_public(pub, &line, &e), ES_DENIED);
    }
END_TEST

START_TEST(keys_are_found_or_it_is_said_how)
    {
        dm_key_pair own, server;
        dm_login login;
        es_error e;
        char home[600], dir[700], hex[DM_KEY_HEX];
        snprintf(home, sizeof home, "%s/home", es_test_dir());
        snprintf(dir, sizeof dir, "%s/.config/espalier", home);
        setenv("HOME", home, 1);
        unsetenv("XDG_CONFIG_HOME");
        unsetenv("ESPALIER_KEY");
        unsetenv("ESPALIER_SERVER_KEY");
        dm_keys_where client = {.role = DM_ROLE_CLIENT}, worker = {.role = DM_ROLE_WORKER};
        ck_assert_ok(dm_login_find("ipc:///tmp/x", &client, false, &login, &e));
        ck_assert(!login.keyed);
        ck_assert_ok(dm_login_find("tcp://head:1", &client, true, &login, &e));
        ck_assert(login.insecure && !login.keyed);
        ck_assert_status(dm_login_find("tcp://head:1", &client, false, &login, &e), ES_NOT_FOUND);
        ck_assert_has(e.text, "espalier keygen --role client");
        dm_key_make(&own);
        dm_key_make(&server);
        ck_assert_ok(dm_key_write(dir, DM_ROLE_ADMIN, "ann", &own, &e));
        ck_assert_status(dm_login_find("tcp://head:1", &client, false, &login, &e), ES_NOT_FOUND);
        ck_assert_has(e.text, "server.pub");
        ck_assert_ok(dm_key_write(dir, DM_ROLE_SERVER, "espalierd", &server, &e));
        ck_assert_ok_err(dm_login_find("tcp://head:1", &client, false, &login, &e), &e);
        ck_assert(login.keyed);
        ck_assert_int_eq(memcmp(login.keys.server, server.pub, DM_KEY_BYTES), 0);
        ck_assert_int_eq(memcmp(&login.keys.own, &own, sizeof own), 0);
        ck_assert_ok_err(dm_login_find("ipc:///tmp/x", &client, false, &login, &e), &e);
        ck_assert(login.keyed); /* the same coordinator's weights may be on tcp */
        ck_assert_status(dm_login_find("tcp://head:1", &worker, false, &login, &e), ES_NOT_FOUND);
        ck_assert_has(e.text, "worker.key");
        dm_key_hex(server.pub, hex);
        client.server = hex;
        ck_assert_ok(dm_login_find("tcp://head:1", &client, false, &login, &e));
        char pub[800];
        snprintf(pub, sizeof pub, "%s/admin.pub", dir);
        client.server = pub;
        ck_assert_status(dm_login_find("tcp://head:1", &client, false, &login, &e), ES_INVALID);
        ck_assert_has(e.text, "server.pub");
        dm_peer *p;
        ck_assert_status(dm_peer_open(&(dm_peer_options){.endpoint = "tcp://127.0.0.1:1"}, &p, &e), ES_DENIED);
        ck_assert_has(e.text, "espalier keygen");
    }
END_TEST

static bool may(dm_role role, dm_from_peer *m)
{
    es_error e = {.code = ES_OK};
    dm_who who = {.role = role, .name = "ann"};
    dm_who local = dm_who_local();
    ck_assert_ok(dm_role_may(&local, m, &e));
    es_status s = dm_role_may(&who, m, &e);
    if (s != ES_OK && role == DM_ROLE_NONE) {
        ck_assert_has(e.text, "was taken out");
    } else if (s != ES_OK) {
        ck_assert_int_eq(s, ES_DENIED);
        ck_assert_has(e.text, dm_role_name(role));
        ck_assert_has(e.text, "this needs the role");
    }
    return s == ES_OK;
}

START_TEST(the_roles_table)
    {
        enum { C = 1, W = 2, A = 4 };
        Espalier__Wire__Command c = ESPALIER__WIRE__COMMAND__INIT;
        static const struct {
            int what, verb, who;
        } table[] = {
            {ESPALIER__WIRE__FROM_PEER__WHAT_HELLO, 0, W | A},
            {ESPALIER__WIRE__FROM_PEER__WHAT_WANT, 0, W | A},
            {ESPALIER__WIRE__FROM_PEER__WHAT_HEARTBEAT, 0, W | A},
            {ESPALIER__WIRE__FROM_PEER__WHAT_FINISH, 0, W | A},
            {ESPALIER__WIRE__FROM_PEER__WHAT_GOODBYE, 0, W | A},
            {ESPALIER__WIRE__FROM_PEER__WHAT_GANG_OFFER, 0, W | A},
            {ESPALIER__WIRE__FROM_PEER__WHAT_SUBMIT, 0, C | A},
            {ESPALIER__WIRE__FROM_PEER__WHAT_QUERY, 0, C | A},
            {ESPALIER__WIRE__FROM_PEER__WHAT_ENQUEUE_NOOP, 0, A},
            {ESPALIER__WIRE__FROM_PEER__WHAT__NOT_SET, 0, A},
            {ESPALIER__WIRE__FROM_PEER__WHAT_COMMAND, ESPALIER__WIRE__VERB__VERB_CANCEL, C | A},
            {ESPALIER__WIRE__FROM_PEER__WHAT_COMMAND, ESPALIER__WIRE__VERB__VERB_PRIORITY, C | A},
            {ESPALIER__WIRE__FROM_PEER__WHAT_COMMAND, ESPALIER__WIRE__VERB__VERB_SHUTDOWN, A},
            {ESPALIER__WIRE__FROM_PEER__WHAT_COMMAND, ESPALIER__WIRE__VERB__VERB_BACKUP, A},
            {ESPALIER__WIRE__FROM_PEER__WHAT_COMMAND, 77, A},
        };
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
            dm_from_peer m = ESPALIER__WIRE__FROM_PEER__INIT;
            m.what_case = (Espalier__Wire__FromPeer__WhatCase)table[i].what;
            c.verb = (Espalier__Wire__Verb)table[i].verb;
            m.command = &c;
            ck_assert_int_eq(may(DM_ROLE_NONE, &m), false);
            ck_assert_int_eq(may(DM_ROLE_CLIENT, &m), (table[i].who & C) != 0);
            ck_assert_int_eq(may(DM_ROLE_WORKER, &m), (table[i].who & W) != 0);
            ck_assert_int_eq(may(DM_ROLE_ADMIN, &m), (table[i].who & A) != 0);
        }
        dm_who client = {.role = DM_ROLE_CLIENT, .name = "ann"};
        dm_data_request d = ESPALIER__WIRE__DATA_REQUEST__INIT;
        es_error e;
        d.what_case = ESPALIER__WIRE__DATA_REQUEST__WHAT_GET_CHUNK;
        ck_assert_ok(dm_role_may_data(&client, &d, &e));
        d.what_case = ESPALIER__WIRE__DATA_REQUEST__WHAT_PUT_CHUNK;
        ck_assert_status(dm_role_may_data(&client, &d, &e), ES_DENIED);
        ck_assert(dm_role_may_watch(DM_ROLE_CLIENT) && !dm_role_may_watch(DM_ROLE_WORKER));
    }
END_TEST

START_TEST(an_ipc_folder_open_to_others_is_refused)
    {
        es_error e;
        char dir[600], endpoint[700];
        snprintf(dir, sizeof dir, "%s/open", es_test_dir());
        snprintf(endpoint, sizeof endpoint, "ipc://%s/c", dir);
        ck_assert_status(dm_ipc_check("ipc://@anybody", &e), ES_DENIED);
        ck_assert_ok(dm_ipc_check(endpoint, &e)); /* not there yet: binding will say so */
        ck_assert_ok(es_file_mkdirs(dir, &e));
        ck_assert_int_eq(chmod(dir, 0755), 0);
        ck_assert_ok_err(dm_ipc_check(endpoint, &e), &e);
        ck_assert_int_eq(chmod(dir, 0777), 0);
        ck_assert_status(dm_ipc_check(endpoint, &e), ES_DENIED);
        ck_assert_has(e.text, "others may write");
        ck_assert_int_eq(chmod(dir, 01777), 0);
        ck_assert_ok(dm_ipc_check(endpoint, &e));
        char us[64], them[64];
        snprintf(us, sizeof us, "localhost:%u:0:123", (unsigned)geteuid());
        snprintf(them, sizeof them, "localhost:%u:0:123", (unsigned)geteuid() + 1);
        ck_assert(dm_ipc_peer_is_us(us) && !dm_ipc_peer_is_us(them));
        ck_assert(!dm_ipc_peer_is_us(NULL) && !dm_ipc_peer_is_us("") && !dm_ipc_peer_is_us("127.0.0.1"));
        ck_assert(!dm_ipc_peer_is_us("localhost:") && !dm_ipc_peer_is_us("localhost::0:1") &&
                  !dm_ipc_peer_is_us("::1"));
    }
END_TEST

/* Sends one frame over a connection and says whether it arrived, and from whom. */
static bool arrives(dm_auth *a, void *router, void *dealer, dm_who *who)
{
    zmq_msg_t id, body;
    int wait = 3000;
    zmq_setsockopt(dealer, ZMQ_SNDTIMEO, &wait, sizeof wait);
    zmq_setsockopt(router, ZMQ_RCVTIMEO, &wait, sizeof wait);
    ck_assert_int_eq(zmq_send(dealer, "x", 1, 0), 1);
    zmq_msg_init(&id);
    zmq_msg_init(&body);
    bool got = zmq_msg_recv(&id, router, 0) >= 0 && zmq_msg_recv(&body, router, 0) >= 0;
    ck_assert(got);
    bool known = dm_auth_who(a, &body, who);
    zmq_msg_close(&id);
    zmq_msg_close(&body);
    return known;
}

START_TEST(a_key_taken_back_is_denied_at_once)
    {
        char dir[600], path[700], bound[256], text[300], hex[DM_KEY_HEX];
        dm_auth *a;
        dm_keys keys;
        dm_login login = {.keyed = true};
        dm_key_line server;
        dm_who who;
        es_error e;
        void *ctx = zmq_ctx_new(), *router = zmq_socket(ctx, ZMQ_ROUTER), *dealer = zmq_socket(ctx, ZMQ_DEALER);
        snprintf(dir, sizeof dir, "%s/keys", es_test_dir());
        ck_assert_ok_err(dm_auth_open(&(dm_auth_options){.zmq = ctx, .keys = dir, .curve = true}, &a, &e), &e);
        ck_assert_ok_err(dm_auth_bind(a, router, "control", "tcp://127.0.0.1:*", bound, &e), &e);
        snprintf(path, sizeof path, "%s/server.pub", dir);
        ck_assert_ok(dm_key_read_public(path, &server, &e));
        memcpy(keys.server, server.pub, DM_KEY_BYTES);
        dm_key_make(&keys.own);
        dm_key_hex(keys.own.pub, hex);
        snprintf(text, sizeof text, "worker gpu-1 %s\n", hex);
        snprintf(path, sizeof path, "%s/authorized_keys", dir);
        ck_assert_ok(es_file_write(path, text, strlen(text), &e));
        ck_assert_ok_err(dm_auth_reload(a, &e), &e);
        login.keys = keys;
        ck_assert_ok_err(dm_peer_secure(dealer, bound, &login, &e), &e);
        ck_assert_int_eq(zmq_connect(dealer, bound), 0);
        ck_assert(arrives(a, router, dealer, &who));
        ck_assert_int_eq(who.role, DM_ROLE_WORKER);
        ck_assert_str_eq(who.name, "gpu-1");
        ck_assert(!who.local);
        ck_assert_ok(es_file_write(path, "nonsense\n", 9, &e));
        ck_assert_status(dm_auth_reload(a, &e), ES_INVALID);
        ck_assert_has(e.where, "authorized_keys:1");
        ck_assert(arrives(a, router, dealer, &who)); /* a mistake in the file changes nothing */
        ck_assert(dm_auth_took_away(a));             /* the admin's, made at the start */
        ck_assert(!dm_auth_took_away(a));
        ck_assert_ok(es_file_write(path, "\n", 1, &e));
        ck_assert_ok(dm_auth_reload(a, &e));
        ck_assert(dm_auth_took_away(a));
        ck_assert(arrives(a, router, dealer, &who));
        ck_assert_int_eq(who.role, DM_ROLE_NONE); /* to which everything is denied */
        ck_assert_uint_eq(dm_auth_refused(a), 1);
        /* The status socket is not for workers: their handshake ends there. */
        char status[256];
        void *events = zmq_socket(ctx, ZMQ_ROUTER), *nosy = zmq_socket(ctx, ZMQ_DEALER);
        ck_assert_ok(es_file_write(path, text, strlen(text), &e));
        ck_assert_ok(dm_auth_reload(a, &e));
        ck_assert_ok_err(dm_auth_bind(a, events, "status", "tcp://127.0.0.1:*", status, &e), &e);
        ck_assert_ok(dm_peer_secure(nosy, status, &login, &e));
        uint64_t before = dm_auth_refused(a);
        ck_assert_int_eq(zmq_connect(nosy, status), 0);
        for (int i = 0; i < 500 && dm_auth_refused(a) == before; i++)
            poll(NULL, 0, 10);
        ck_assert_uint_gt(dm_auth_refused(a), before);
        ck_assert(arrives(a, router, dealer, &who) && who.role == DM_ROLE_WORKER); /* and control is */
        zmq_close(nosy);
        zmq_close(events);
        /* The same socket over ipc: this user needs no key. */
        char ipc[700];
        struct stat st;
        void *here = zmq_socket(ctx, ZMQ_DEALER);
        snprintf(ipc, sizeof ipc, "ipc://%s/c", es_test_dir());
        ck_assert_ok_err(dm_auth_bind(a, router, "control", ipc, bound, &e), &e);
        ck_assert_int_eq(stat(ipc + 6, &st), 0);
        ck_assert_uint_eq(st.st_mode & 0777, 0600);
        ck_assert_int_eq(zmq_connect(here, ipc), 0);
        ck_assert(arrives(a, router, here, &who));
        ck_assert(who.local && who.role == DM_ROLE_ADMIN);
        zmq_close(here);
        zmq_close(dealer);
        zmq_close(router);
        dm_auth_close(&a);
        zmq_ctx_term(ctx);
    }
END_TEST

ES_TEST_MAIN("auth", authorized_keys_is_read, bad_lines_say_where, key_files_are_private,
             keys_are_found_or_it_is_said_how, the_roles_table, an_ipc_folder_open_to_others_is_refused,
             a_key_taken_back_is_denied_at_once)
