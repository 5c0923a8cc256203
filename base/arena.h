/* arena.h - memory that is freed all at once.
 *
 *     es_arena *a = es_arena_new(64 * 1024);
 *     node *n = es_arena_alloc(a, sizeof *n);      // zeroed, 16-byte aligned
 *     es_arena_reset(a);                            // keeps the blocks: building the next graph allocates nothing
 *     es_arena_destroy(&a);
 *
 * An arena never returns NULL: it is for small control-plane objects, and running out of those ends the process with a message
 * (style rule: anything large or client-sized uses malloc and a status). Not thread-safe: one owner.
 */
#ifndef ES_BASE_ARENA_H
#define ES_BASE_ARENA_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct es_arena es_arena;

es_arena *es_arena_new(size_t block_bytes);
void es_arena_destroy(es_arena **a); /* NULL-safe, sets *a to NULL */
void es_arena_reset(es_arena *a);
void *es_arena_alloc(es_arena *a, size_t bytes);
char *es_arena_strdup(es_arena *a, const char *s);
char *es_arena_printf(es_arena *a, const char *fmt, ...) ES_PRINTF(2, 3);
size_t es_arena_bytes(const es_arena *a); /* held from the system, for limits and tests */

/* The same promise for single objects (executables and bounded tables): zeroed, never NULL. Freed with free(). */
void *es_xcalloc(size_t count, size_t size);
void *es_xrealloc(void *p, size_t bytes);
char *es_xstrdup(const char *s);

#ifdef __cplusplus
}
#endif
#endif
