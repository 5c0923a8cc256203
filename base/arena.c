#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16 };

typedef struct block block;
struct block {
    block *next;
    size_t cap, used;
    _Alignas(ALIGN) char bytes[];
};

/* Blocks are kept in a list in the order they were filled; `now` is the one being filled, those after it are empty. */
struct es_arena {
    block *first, *now;
    size_t block_bytes, held;
};

__attribute__((noreturn)) static void out_of_memory(size_t bytes)
{
    fprintf(stderr, "out of memory: %zu bytes refused\n", bytes);
    abort();
}

void *es_xcalloc(size_t count, size_t size)
{
    /* calloc(0) may return NULL, which would look like a failure to the caller */
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (!p)
        out_of_memory(count * size);
    return p;
}

void *es_xrealloc(void *p, size_t bytes)
{
    void *q = realloc(p, bytes ? bytes : 1);
    if (!q)
        out_of_memory(bytes);
    return q;
}

char *es_xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(es_xcalloc(n, 1), s, n);
}

static block *block_new(es_arena *a, size_t cap)
{
    block *b = malloc(sizeof *b + cap);
    if (!b)
        out_of_memory(cap);
    b->next = NULL;
    b->cap = cap;
    b->used = 0;
    a->held += sizeof *b + cap;
    return b;
}

es_arena *es_arena_new(size_t block_bytes)
{
    es_arena *a = es_xcalloc(1, sizeof *a);
    a->block_bytes = (block_bytes < 256 ? 256 : block_bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    a->first = a->now = block_new(a, a->block_bytes);
    return a;
}

void es_arena_destroy(es_arena **a)
{
    if (!*a)
        return;
    for (block *b = (*a)->first, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(*a);
    *a = NULL;
}

void es_arena_reset(es_arena *a)
{
    for (block *b = a->first; b; b = b->next)
        b->used = 0;
    a->now = a->first;
}

void *es_arena_alloc(es_arena *a, size_t bytes)
{
    size_t need = (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (need < bytes)
        out_of_memory(bytes);
    if (a->now->cap - a->now->used < need) {
        /* The following blocks are empty after a reset. One too small is left behind a new one, not lost: it serves later requests. */
        block *b = a->now->next;
        if (!b || b->cap < need) {
            b = block_new(a, need > a->block_bytes ? need : a->block_bytes);
            b->next = a->now->next;
            a->now->next = b;
        }
        a->now = b;
    }
    void *p = a->now->bytes + a->now->used;
    a->now->used += need;
    return memset(p, 0, need);
}

char *es_arena_strdup(es_arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(es_arena_alloc(a, n), s, n);
}

char *es_arena_printf(es_arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    ES_ASSERT(n >= 0);
    char *p = es_arena_alloc(a, (size_t)n + 1);
    vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

size_t es_arena_bytes(const es_arena *a) { return a->held; }
