/* A named backup that replaces an older one, by a process that is killed anywhere: there is a whole backup of that name, or it is found again. */
#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>

#include "base/file.h"
#include "daemon/backup/backup.h"
#include "daemon/backup/restore.h"
#include "daemon/weights/weights.h"
#include "tests/check_main.h"

/* Names change in these two calls, which stand here in place of the C library's: the process dies before or after number `die_at` of them. */
static int die_at, step_n;
static bool exchanges = true; /* false: a filesystem that cannot */

static void step(void)
{
    if (++step_n == die_at)
        kill(getpid(), SIGKILL);
}
int rename(const char *from, const char *to)
{
    step();
    int rc = (int)syscall(SYS_renameat, -100, from, -100, to);
    step();
    return rc;
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
    if (!exchanges) {
        errno = EINVAL;
        return -1;
    }
    step();
    int rc = (int)syscall(SYS_renameat2, a, from, b, to, flags);
    step();
    return rc;
}

static es_status back_up(const char *dir, const char *to, int64_t now_ms, es_error *err)
{
    char state[700], weights[700];
    dm_store *st = NULL;
    dm_weights *w = NULL;
    dm_backup *b = NULL;
    dm_backup_report r = {0};
    es_status s = ES_OK;
    snprintf(state, sizeof state, "%s/state.db", dir);
    snprintf(weights, sizeof weights, "%s/weights.db", dir);
    ES_GOTO(dm_store_open(state, NULL, &st, err));
    ES_GOTO(dm_weights_open(weights, &w, err));
    b = dm_backup_new(st, weights);
    ES_GOTO(dm_backup_start(b, to, now_ms, err));
    while (!dm_backup_ended(b, &r))
        poll(NULL, 0, dm_backup_turn(b) / 10);
    s = r.status;
    if (s != ES_OK)
        *err = r.err;
fail:
    dm_backup_destroy(&b);
    dm_weights_close(&w);
    dm_store_close(&st);
    return s;
}

static bool survives(const char *dir, const char *to, int64_t now_ms, int at)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        es_error err = {0};
        char line[700];
        die_at = at;
        step_n = 0;
        if (back_up(dir, to, now_ms, &err) == ES_OK)
            _exit(0);
        fprintf(stderr, "step %d: %s\n", at, es_error_line(&err, line, sizeof line));
        _exit(1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "step %d: it complains", at);
    return !WIFSIGNALED(status);
}

/* Whole at every moment; returns when the one that is there was made. */
static int64_t whole(const char *to, int at)
{
    dm_backup_info info;
    es_error e;
    ck_assert_msg(dm_backup_verify(to, &info, &e) == ES_OK, "killed at step %d: %s: %s", at, e.where, e.text);
    return info.made_ms;
}

static void replaced_and_killed(bool at_once)
{
    char dir[600], to[700], said[1600];
    es_error e;
    int at = 1, lost = 0, older = 0, newer = 0;
    snprintf(dir, sizeof dir, "%s/db", es_test_dir());
    snprintf(to, sizeof to, "%s/named", es_test_dir());
    ck_assert_ok(es_file_mkdirs(dir, &e));
    exchanges = at_once;
    ck_assert(survives(dir, to, 1, 0));
    ck_assert_int_eq(whole(to, 0), 1);
    for (bool over = false; !over; at++) {
        over = survives(dir, to, at + 1, at);
        bool gone = !es_file_exists(to);
        lost += gone;
        ck_assert_ok_err(dm_backup_recover(to, &e), &e); /* what a start of the next backup and --restore do first */
        int64_t made = whole(to, at);
        newer += made == at + 1;
        older += made <= at;
    }
    ck_assert_int_ge(newer, 2);
    ck_assert_int_ge(older, 2);
    ck_assert_int_eq(lost > 0, !at_once);
    /* And the next one leaves nothing behind. */
    ck_assert(survives(dir, to, 100, 0));
    ck_assert_int_eq(whole(to, 0), 100);
    char path[800];
    static const char *const endings[] = {".partial", ".old.partial"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s%s", to, endings[i]);
        ck_assert(!es_file_exists(path) || i == 1);
    }
    snprintf(path, sizeof path, "%s/again", es_test_dir());
    ck_assert_ok_err(dm_restore(path, to, false, said, &e), &e);
}

START_TEST(a_name_is_never_gone_where_names_can_be_exchanged)
    {
        replaced_and_killed(true);
    }
END_TEST

START_TEST(elsewhere_it_is_found_again)
    {
        replaced_and_killed(false);
    }
END_TEST

ES_TEST_MAIN("backup_replace", a_name_is_never_gone_where_names_can_be_exchanged, elsewhere_it_is_found_again)
