#include "kernels/params/params.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

struct kn_params {
    es_arena *names;
    kn_param_def *defs;
    int count, capacity;
    uint32_t *table; /* open addressing, index + 1; 0 is free; always less than half full */
    uint32_t table_size;
    int64_t elements;
    bool sealed;
};

static uint32_t hash_name(const char *s)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; *s != '\0'; s++)
        h = (h ^ (uint8_t)*s) * 16777619u;
    return h;
}

kn_params *kn_params_new(void)
{
    kn_params *p = es_xcalloc(1, sizeof *p);
    p->names = es_arena_new(4096);
    p->table_size = 64;
    p->table = es_xcalloc(p->table_size, sizeof *p->table);
    return p;
}

void kn_params_destroy(kn_params **p)
{
    if (*p == NULL)
        return;
    es_arena_destroy(&(*p)->names);
    free((*p)->defs);
    free((*p)->table);
    free(*p);
    *p = NULL;
}

/* The slot that holds `name`, or the free one where it belongs. */
static uint32_t *find_slot(const kn_params *p, const char *name)
{
    uint32_t i = hash_name(name) & (p->table_size - 1);
    while (p->table[i] != 0 && strcmp(p->defs[p->table[i] - 1].name, name) != 0)
        i = (i + 1) & (p->table_size - 1);
    return &p->table[i];
}

static void grow(kn_params *p)
{
    if (p->count == p->capacity) {
        p->capacity = p->capacity == 0 ? 64 : 2 * p->capacity;
        p->defs = es_xrealloc(p->defs, (size_t)p->capacity * sizeof *p->defs);
    }
    if (2 * (uint32_t)(p->count + 1) < p->table_size)
        return;
    free(p->table);
    p->table_size *= 2;
    p->table = es_xcalloc(p->table_size, sizeof *p->table);
    for (int i = 0; i < p->count; i++)
        *find_slot(p, p->defs[i].name) = (uint32_t)i + 1;
}

es_status kn_params_add(kn_params *p, const char *name, kn_shape shape, kn_init_kind init, unsigned flags,
                        kn_param *out, es_error *err)
{
    ES_ASSERT(!p->sealed);
    char text[64];
    if (name == NULL || name[0] == '\0')
        return es_fail(err, ES_INVALID, "parameter", "needs a name");
    if (shape.rank < 1 || shape.rank > KN_RANK_MAX)
        return es_fail(err, ES_INVALID, name, "a parameter has 1 to %d dimensions, not %d", KN_RANK_MAX, shape.rank);
    for (int i = 0; i < shape.rank; i++)
        if (shape.d[i] < 1)
            return es_fail(err, ES_INVALID, name, "shape %s: every dimension must be at least 1",
                           kn_shape_text(&shape, text));
    if ((flags & KN_PARAM_DEPTHWISE) != 0 && shape.rank != 3)
        return es_fail(err, ES_INVALID, name, "shape %s: a depthwise weight is [kh][kw][channels]",
                       kn_shape_text(&shape, text));
    int64_t count = kn_shape_count(&shape);
    if (count > INT32_MAX)
        return es_fail(err, ES_INVALID, name, "shape %s has more than 2^31 elements", kn_shape_text(&shape, text));
    grow(p);
    uint32_t *slot = find_slot(p, name);
    if (*slot != 0)
        return es_fail(err, ES_EXISTS, name, "a parameter of this name is declared already");
    for (int i = shape.rank; i < KN_RANK_MAX; i++)
        shape.d[i] = 1;
    p->defs[p->count] = (kn_param_def){.name = es_arena_strdup(p->names, name),
                                       .shape = shape,
                                       .offset = p->elements,
                                       .count = count,
                                       .init = init,
                                       .flags = flags};
    p->elements += (count + KN_PARAM_ALIGN - 1) / KN_PARAM_ALIGN * KN_PARAM_ALIGN;
    *out = p->count++;
    *slot = (uint32_t)p->count;
    return ES_OK;
}

void kn_params_seal(kn_params *p) { p->sealed = true; }

int kn_params_count(const kn_params *p) { return p->count; }

const kn_param_def *kn_params_def(const kn_params *p, kn_param id)
{
    ES_ASSERT(id >= 0 && id < p->count);
    return &p->defs[id];
}

bool kn_params_find(const kn_params *p, const char *name, kn_param *out)
{
    uint32_t at = *find_slot(p, name);
    if (at != 0)
        *out = (kn_param)at - 1;
    return at != 0;
}

int64_t kn_params_elements(const kn_params *p)
{
    ES_ASSERT(p->sealed);
    return p->elements;
}
