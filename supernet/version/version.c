#include "supernet/version/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

sn_version *sn_version_new(const char *kind)
{
    sn_version *v = es_xcalloc(1, sizeof *v);
    ES_ASSERT(strlen(kind) < sizeof v->kind);
    snprintf(v->kind, sizeof v->kind, "%s", kind);
    return v;
}

void sn_version_destroy(sn_version **v)
{
    if (!*v)
        return;
    for (int i = 0; i < (*v)->count; i++)
        free((*v)->arrays[i].data);
    free((*v)->arrays);
    free((*v)->meta);
    free(*v);
    *v = NULL;
}

/* Index of the first array whose name is not below `name`. */
static int lower_bound(const sn_version *v, const char *name)
{
    int low = 0, high = v->count;
    while (low < high) {
        int mid = low + (high - low) / 2;
        if (strcmp(v->arrays[mid].name, name) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

es_status sn_version_add(sn_version *v, const char *name, kn_dtype t, const kn_shape *shape, const void *data,
                         es_error *err)
{
    sn_array a = {.dtype = t, .shape = *shape, .bytes = (size_t)kn_shape_count(shape) * kn_dtype_bytes(t)};
    int at = lower_bound(v, name);
    if (name[0] == 0 || strlen(name) >= sizeof a.name)
        return es_fail(err, ES_INVALID, v->kind, "array name of %zu bytes: allowed are 1 to %zu", strlen(name),
                       sizeof a.name - 1);
    if (at < v->count && strcmp(v->arrays[at].name, name) == 0)
        return es_fail(err, ES_EXISTS, v->kind, "two arrays named %s", name);
    snprintf(a.name, sizeof a.name, "%s", name);
    a.data = malloc(a.bytes ? a.bytes : 1);
    if (!a.data)
        return es_fail(err, ES_NO_MEMORY, name, "%zu bytes", a.bytes);
    memcpy(a.data, data, a.bytes);
    v->arrays = es_xrealloc(v->arrays, (size_t)(v->count + 1) * sizeof *v->arrays);
    memmove(v->arrays + at + 1, v->arrays + at, (size_t)(v->count - at) * sizeof *v->arrays);
    v->arrays[at] = a;
    v->count++;
    return ES_OK;
}

void sn_version_meta(sn_version *v, const char *json)
{
    char *copy = json ? es_xstrdup(json) : NULL;
    free(v->meta);
    v->meta = copy;
}

const sn_array *sn_version_find(const sn_version *v, const char *name)
{
    int at = lower_bound(v, name);
    return at < v->count && strcmp(v->arrays[at].name, name) == 0 ? &v->arrays[at] : NULL;
}

bool sn_version_equal(const sn_version *a, const sn_version *b)
{
    if (strcmp(a->kind, b->kind) != 0 || strcmp(a->meta ? a->meta : "", b->meta ? b->meta : "") != 0 ||
        a->count != b->count)
        return false;
    for (int i = 0; i < a->count; i++) {
        const sn_array *x = &a->arrays[i], *y = &b->arrays[i];
        if (strcmp(x->name, y->name) != 0 || x->dtype != y->dtype || !kn_shape_equal(&x->shape, &y->shape) ||
            x->bytes != y->bytes || memcmp(x->data, y->data, x->bytes) != 0)
            return false;
    }
    return true;
}
