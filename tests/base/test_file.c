#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <zlib.h>

#include "tests/check_main.h"

static int entries(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

START_TEST(write_replaces_and_leaves_nothing_behind)
    {
        const char *dir = es_test_dir(), *path = es_test_join(dir, "a");
        es_error e;
        char *data;
        size_t n;
        ck_assert_ok_err(es_file_write(path, "one", 3, &e), &e);
        ck_assert_ok_err(es_file_write(path, "two!", 4, &e), &e);
        ck_assert_ok_err(es_file_read(path, 4, &data, &n, &e), &e);
        ck_assert_uint_eq(n, 4);
        ck_assert_str_eq(data, "two!");
        free(data);
        ck_assert_int_eq(entries(dir), 1);
        ck_assert_ok_err(es_file_write(path, "", 0, &e), &e);
        ck_assert_ok_err(es_file_read(path, 0, &data, NULL, &e), &e);
        ck_assert_str_eq(data, "");
        free(data);
        struct stat st;
        ck_assert_int_eq(stat(path, &st), 0);
        ck_assert_int_eq((int)(st.st_mode & 0777), 0666 & ~022);
    }
END_TEST

/* A full disk at any byte: here the file size limit, which fails in write() just the same. */
START_TEST(a_failed_write_keeps_the_old_content)
    {
        const char *dir = es_test_dir(), *path = es_test_join(dir, "a");
        es_error e;
        ck_assert_ok(es_file_write(path, "old", 3, &e));
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit old, limit;
        getrlimit(RLIMIT_FSIZE, &old);
        limit = old;
        limit.rlim_cur = 8192;
        char *big = calloc(1, 100000);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
        es_status s = es_file_write(path, big, 100000, &e);
        setrlimit(RLIMIT_FSIZE, &old);
        free(big);
        ck_assert_int_eq(s, ES_IO);
        ck_assert_has(e.text, "cannot write: ");
        ck_assert_int_eq(entries(dir), 1);
        char *data;
        ck_assert_ok(es_file_read(path, 100, &data, NULL, &e));
        ck_assert_str_eq(data, "old");
        free(data);
    }
END_TEST

START_TEST(a_full_disk_is_named)
    {
        es_error e;
        int fd = open("/dev/full", O_WRONLY);
        if (fd < 0) {
            es_test_skip("/dev/full");
            return;
        }
        ck_assert_int_lt(write(fd, "x", 1), 0);
        ck_assert_status(es_fail_errno(&e, "f", "cannot write"), ES_DISK_FULL);
        close(fd);
        ck_assert_status(es_file_write("/no/such/dir/file", "x", 1, &e), ES_NOT_FOUND);
        ck_assert_has(e.text, "/no/such/dir");
    }
END_TEST

START_TEST(reading_refuses)
    {
        const char *dir = es_test_dir(), *path = es_test_join(dir, "a");
        es_error e;
        char *data = NULL;
        ck_assert_status(es_file_read(path, 10, &data, NULL, &e), ES_NOT_FOUND);
        ck_assert_str_eq(e.where, path);
        ck_assert_status(es_file_read(dir, 10, &data, NULL, &e), ES_INVALID);
        ck_assert_has(e.text, "directory");
        ck_assert_ok(es_file_write(path, "12345678901", 11, &e));
        ck_assert_status(es_file_read(path, 10, &data, NULL, &e), ES_INVALID);
        ck_assert_has(e.text, "11 bytes, at most 10");
        ck_assert_ptr_null(data);
        /* size unknown beforehand */
        ck_assert_ok_err(es_file_read("/proc/self/status", 1 << 20, &data, NULL, &e), &e);
        ck_assert_has(data, "Pid:");
        free(data);
        ck_assert_status(es_file_read("/proc/self/status", 20, &data, NULL, &e), ES_INVALID);
    }
END_TEST

static size_t gz(const char *path, const char *mode, const char *text, size_t n)
{
    gzFile f = gzopen(path, mode);
    ck_assert_int_eq(gzwrite(f, text, (unsigned)n), (int)n);
    gzclose(f);
    struct stat st;
    stat(path, &st);
    return (size_t)st.st_size;
}

START_TEST(gzip_is_transparent)
    {
        const char *path = es_test_join(es_test_dir(), "a.gz");
        enum { N = 300000 };
        char *text = malloc(N);
        for (int i = 0; i < N; i++)
            text[i] = (char)('a' + i * 7 % 23);
        gz(path, "wb", text, N);
        es_error e;
        char *data;
        size_t n;
        ck_assert_ok_err(es_file_read(path, N, &data, &n, &e), &e); /* exactly the limit */
        ck_assert_uint_eq(n, N);
        ck_assert_int_eq(memcmp(data, text, N), 0);
        free(data);
        ck_assert_status(es_file_read(path, N - 1, &data, &n, &e), ES_INVALID);
        ck_assert_has(e.text, "at most 299999");
        /* two members are one content */
        size_t whole = gz(path, "ab", "tail", 4);
        ck_assert_ok_err(es_file_read(path, 2 * N, &data, &n, &e), &e);
        ck_assert_uint_eq(n, N + 4);
        ck_assert_str_eq(data + N, "tail");
        free(data);
        /* truncated and damaged */
        gz(path, "wb", text, N);
        ck_assert_int_eq(truncate(path, (off_t)whole / 2), 0);
        ck_assert_status(es_file_read(path, N, &data, &n, &e), ES_CORRUPT);
        ck_assert_has(e.text, "truncated gzip");
        size_t size = gz(path, "wb", text, N);
        FILE *f = fopen(path, "r+");
        fseek(f, (long)size - 8, SEEK_SET); /* the checksum */
        fputc('!', f);
        fclose(f);
        ck_assert_status(es_file_read(path, N, &data, &n, &e), ES_CORRUPT);
        ck_assert_has(e.text, "damaged gzip");
        free(text);
    }
END_TEST

START_TEST(directories)
    {
        const char *dir = es_test_dir(), *deep = es_test_join(dir, "x/y//z"), *file = es_test_join(dir, "x/f");
        es_error e;
        ck_assert_ok_err(es_file_mkdirs(deep, &e), &e);
        ck_assert_ok_err(es_file_mkdirs(deep, &e), &e);
        ck_assert(es_file_exists(deep));
        ck_assert_ok(es_file_write(file, "x", 1, &e));
        ck_assert_status(es_file_mkdirs(es_test_join(file, "below"), &e), ES_EXISTS);
        ck_assert_has(e.text, "is not a directory");
        ck_assert_status(es_file_mkdirs("", &e), ES_INVALID);
        /* a link inside is removed, what it points to stays */
        const char *outside = es_test_join(es_test_dir(), "keep");
        ck_assert_ok(es_file_write(outside, "x", 1, &e));
        char up[1024];
        snprintf(up, sizeof up, "%s", outside);
        *strrchr(up, '/') = '\0';
        ck_assert_int_eq(symlink(up, es_test_join(dir, "x/link")), 0);
        ck_assert_ok_err(es_file_remove_tree(dir, &e), &e);
        ck_assert(!es_file_exists(dir));
        ck_assert(es_file_exists(outside));
        ck_assert_ok(es_file_remove_tree(dir, &e));
        ck_assert_ok(es_file_remove_tree(outside, &e));
        ck_assert(!es_file_exists(outside));
    }
END_TEST

START_TEST(unwritable_directory)
    {
        if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) {
            es_test_skip("cannot drop root");
            return;
        }
        es_error e;
        ck_assert_status(es_file_write("/etc/espalier-test", "x", 1, &e), ES_DENIED);
        ck_assert_has(e.text, "cannot create a file in /etc: Permission denied");
        ck_assert_status(es_file_mkdirs("/etc/espalier-test", &e), ES_DENIED);
    }
END_TEST

ES_TEST_MAIN("base/file", write_replaces_and_leaves_nothing_behind, a_failed_write_keeps_the_old_content,
             a_full_disk_is_named, reading_refuses, gzip_is_transparent, directories, unwritable_directory)
