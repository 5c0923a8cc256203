/* status.h - one status for the whole tree, and how errors travel.
 *
 *     es_status load(const char *path, struct thing *out, es_error *err)
 *     {
 *         char *text = NULL;
 *         es_status s = ES_OK;
 *         ES_GOTO(es_file_read(path, 1 << 20, &text, NULL, err));
 *         if (text[0] != '{')
 *             s = es_fail(err, ES_INVALID, path, "expected a JSON object");
 *     fail:
 *         free(text);
 *         return s;
 *     }
 *
 * Rules
 *  - Every function that can fail returns es_status, gives values through out-parameters and takes an `es_error *err`
 *    last (NULL is allowed everywhere: the code alone then travels).
 *  - The text is written once, where the cause is known; callers pass `err` on unchanged, or add a place with es_at().
 *  - ES_RETURN is for functions that own nothing. A function that owns anything declares `es_status s`, uses ES_GOTO only,
 *    and has exactly one `fail:` label that frees through NULL-safe destroyers.
 *  - Statuses are for the world's faults; ES_ASSERT is for ours, stays on in release builds, and its argument has no effects.
 */
#ifndef ES_BASE_STATUS_H
#define ES_BASE_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum es_status {
    ES_OK = 0,
    ES_INVALID,     /* the caller's input is wrong: the text says where, what, and what is allowed */
    ES_NOT_FOUND,   /* a file, row, name or id does not exist */
    ES_EXISTS,      /* it exists already */
    ES_UNSUPPORTED, /* well formed, but not offered by this build, device or version */
    ES_NO_MEMORY,   /* host or device memory */
    ES_IO,          /* the operating system refused */
    ES_DISK_FULL,   /* ENOSPC, EDQUOT, SQLITE_FULL: nothing was lost, retry after making room */
    ES_CORRUPT,     /* stored or received bytes contradict their own checksum or form */
    ES_BUSY,        /* held by another process, or a bounded queue is full */
    ES_TIMEOUT,
    ES_CANCELLED,
    ES_DENIED,     /* authentication or role */
    ES_VERSION,    /* a peer or file speaks another version */
    ES_LOST,       /* a lease or a peer is gone */
    ES_DEVICE,     /* the accelerator failed: the worker process must end */
    ES_INFEASIBLE, /* no architecture satisfies the constraints */
    ES_STATUS_COUNT
} es_status;

#define ES_MUST_CHECK __attribute__((warn_unused_result))
#define ES_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

typedef struct es_error {
    es_status code;
    char where[128]; /* "search.yaml:12:7: space.stages[1].kernel", a path, a job: where it is wrong; may be empty */
    char text[512];  /* what is wrong and what is allowed, one sentence, no full stop */
} es_error;

/* The stable lower-case name ("invalid", "disk-full"): for logs, wire and JSON. */
const char *es_status_name(es_status s);

/* Fills *err (when not NULL) and returns `code`. `where` may be NULL. Long texts are cut, never overrun. */
es_status es_fail(es_error *err, es_status code, const char *where, const char *fmt, ...) ES_PRINTF(4, 5);

/* Same, and appends strerror(errno); ENOSPC and EDQUOT become ES_DISK_FULL, ENOENT ES_NOT_FOUND, ENOMEM ES_NO_MEMORY, EACCES/EPERM
 * ES_DENIED, EEXIST ES_EXISTS; anything else ES_IO. */
es_status es_fail_errno(es_error *err, const char *where, const char *fmt, ...) ES_PRINTF(3, 4);

/* Prefixes err->where with "place: " (place wins when it would not fit). Returns s, so it can be chained. */
es_status es_at(es_error *err, es_status s, const char *place);

/* Writes "where: text" into buf, always terminated; returns buf. */
const char *es_error_line(const es_error *err, char *buf, size_t size);

#define ES_RETURN(call)                \
    do {                               \
        es_status es_status_ = (call); \
        if (es_status_ != ES_OK)       \
            return es_status_;         \
    } while (0)

#define ES_GOTO(call)   \
    do {                \
        s = (call);     \
        if (s != ES_OK) \
            goto fail;  \
    } while (0)

/* Prints the place and ends the process with abort(). */
__attribute__((noreturn)) void es_assert_failed(const char *what, const char *file, int line);

#define ES_ASSERT(cond)                                  \
    do {                                                 \
        if (__builtin_expect(!(cond), 0))                \
            es_assert_failed(#cond, __FILE__, __LINE__); \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
