/* A start, or a keygen, that is killed anywhere while it makes keys: the next one has whole pairs, and the admin is authorised. */
#include <sys/stat.h>
#include <sys/syscall.h>
#include <zmq.h>

#include "base/file.h"
#include "daemon/auth/auth.h"
#include "daemon/auth/authorized.h"
#include "tests/check_main.h"

/* The steps that change what a crash leaves; the process dies in front of number `die_at`. They stand here in place of the C library's. */
static int die_at, step_n;
static void step(void)
{
    if (++step_n == die_at)
        kill(getpid(), SIGKILL);
}
int fsync(int fd)
{
    step();
    return (int)syscall(SYS_fsync, fd);
}
int link(const char *from, const char *to)
{
    step();
    return (int)syscall(SYS_linkat, -100, from, -100, to, 0);
}
int rename(const char *from, const char *to)
{
    step();
    return (int)syscall(SYS_renameat, -100, from, -100, to);
}

/* Runs fn in a process that dies in front of step `at` (0: never); false: it was killed. */
static bool survives(es_status (*fn)(const char *dir, es_error *err), const char *dir, int at)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        es_error err = {0};
        char line[700];
        die_at = at;
        step_n = 0;
        if (fn(dir, &err) == ES_OK)
            _exit(0);
        fprintf(stderr, "step %d: %s\n", at, es_error_line(&err, line, sizeof line));
        _exit(1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "step %d: it complains", at);
    return !WIFSIGNALED(status);
}

static es_status start(const char *dir, es_error *err)
{
    dm_auth *a = NULL;
    void *ctx = zmq_ctx_new();
    es_status s = dm_auth_open(&(dm_auth_options){.zmq = ctx, .keys = dir, .curve = true}, &a, err);
    dm_auth_close(&a);
    zmq_ctx_term(ctx);
    return s;
}

static es_status keygen(const char *dir, es_error *err)
{
    dm_key_pair k;
    bool completed;
    ES_RETURN(dm_key_complete(dir, DM_ROLE_CLIENT, "ann", &k, &completed, err));
    if (completed || es_file_exists(es_test_join(dir, "client.key")))
        return ES_OK;
    dm_key_make(&k);
    return dm_key_write(dir, DM_ROLE_CLIENT, "ann", &k, err);
}

static void check_pair(const char *dir, const char *role, dm_key_pair *k)
{
    char name[32];
    dm_key_line line;
    es_error e;
    snprintf(name, sizeof name, "%s.key", role);
    ck_assert_ok_err(dm_key_read_secret(es_test_join(dir, name), k, &e), &e);
    snprintf(name, sizeof name, "%s.pub", role);
    ck_assert_ok_err(dm_key_read_public(es_test_join(dir, name), &line, &e), &e);
    ck_assert_int_eq(memcmp(line.pub, k->pub, DM_KEY_BYTES), 0);
}

START_TEST(a_start_killed_anywhere_is_made_good_by_the_next)
    {
        int at = 1;
        for (bool over = false; !over; at++) {
            char dir[700];
            dm_key_pair server, admin;
            dm_auth_table t;
            es_error e;
            snprintf(dir, sizeof dir, "%s/start-%d", es_test_dir(), at);
            over = survives(start, dir, at);
            ck_assert(survives(start, dir, 0));
            check_pair(dir, "server", &server);
            check_pair(dir, "admin", &admin);
            ck_assert_ok_err(dm_auth_table_read(es_test_join(dir, "authorized_keys"), &t, &e), &e);
            const dm_key_line *who = dm_auth_table_find(&t, admin.pub);
            ck_assert(who && who->role == DM_ROLE_ADMIN && t.n == 1);
            dm_auth_table_free(&t);
        }
        ck_assert_int_ge(at, 16); /* five files, a few steps each */
    }
END_TEST

START_TEST(a_keygen_killed_anywhere_is_made_good_by_the_next)
    {
        int at = 1;
        for (bool over = false; !over; at++) {
            char dir[700];
            dm_key_pair k;
            snprintf(dir, sizeof dir, "%s/gen-%d", es_test_dir(), at);
            over = survives(keygen, dir, at);
            ck_assert(survives(keygen, dir, 0));
            check_pair(dir, "client", &k);
        }
        ck_assert_int_ge(at, 7);
    }
END_TEST

/* Whoever takes authorized_keys away means it: the admin's key is not let in again. */
START_TEST(a_file_taken_away_is_not_made_again)
    {
        char dir[700];
        es_error e = {0};
        snprintf(dir, sizeof dir, "%s/taken", es_test_dir());
        ck_assert(survives(start, dir, 0));
        ck_assert_int_eq(unlink(es_test_join(dir, "authorized_keys")), 0);
        ck_assert_status(start(dir, &e), ES_NOT_FOUND);
        ck_assert_has(e.where, "authorized_keys");
        ck_assert_int_eq(unlink(es_test_join(dir, "server.pub")), 0); /* which holds no secret and opens nothing */
        ck_assert_status(start(dir, &e), ES_NOT_FOUND);
        dm_key_pair server;
        check_pair(dir, "server", &server);
    }
END_TEST

ES_TEST_MAIN("keys_crash", a_start_killed_anywhere_is_made_good_by_the_next,
             a_keygen_killed_anywhere_is_made_good_by_the_next, a_file_taken_away_is_not_made_again)
