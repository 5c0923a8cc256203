/* Whether one version can stand in for another: what a worker hands in as "the same weights, trained on" must have the same shapes. */
#include <string.h>

#include "daemon/weights/internal.h"

static es_status manifest_read(dm_weights *w, const char *hex, Espalier__Wire__Manifest **out, es_error *err)
{
    dm_stmt *q = NULL;
    size_t n;
    ProtobufCMessage *m = NULL;
    ES_RETURN(dm_db_query(w->db, &q, "SELECT manifest FROM version WHERE id = ?", err, "s", hex));
    es_status s = dm_stmt_row(q, err);
    if (s == ES_OK) {
        const void *bytes = dm_stmt_blob(q, 0, &n);
        s = dm_decode(&espalier__wire__manifest__descriptor, bytes, n, &m, err);
    } else if (s == ES_NOT_FOUND) {
        s = es_fail(err, s, hex, "is not in the weights store");
    }
    dm_stmt_end(q);
    *out = (Espalier__Wire__Manifest *)m;
    return s;
}

static void manifest_free(Espalier__Wire__Manifest *m)
{
    ProtobufCMessage *base = m ? &m->base : NULL;
    dm_message_free(&base);
}

static bool same_form(const Espalier__Wire__Array *a, const Espalier__Wire__Array *b)
{
    return strcmp(a->dtype, b->dtype) == 0 && a->bytes == b->bytes && a->n_shape == b->n_shape &&
           (a->n_shape == 0 || memcmp(a->shape, b->shape, a->n_shape * sizeof *a->shape) == 0);
}

es_status dm_weights_alike(dm_weights *w, const char *hex, const char *like, es_error *err)
{
    Espalier__Wire__Manifest *a = NULL, *b = NULL;
    es_status s = ES_OK;
    ES_GOTO(manifest_read(w, hex, &a, err));
    ES_GOTO(manifest_read(w, like, &b, err));
    for (size_t i = 0, k = 0; i < b->n_arrays; i++) { /* both are ordered by name; what is new may have been added */
        while (k < a->n_arrays && strcmp(a->arrays[k]->name, b->arrays[i]->name) < 0)
            k++;
        if (k == a->n_arrays || strcmp(a->arrays[k]->name, b->arrays[i]->name) != 0)
            s = es_fail(err, ES_CORRUPT, hex, "has no array %.80s, which the version it was trained on from has",
                        b->arrays[i]->name);
        else if (!same_form(a->arrays[k], b->arrays[i]))
            s = es_fail(err, ES_CORRUPT, hex,
                        "array %.80s has another type or shape than in the version it was trained on from",
                        b->arrays[i]->name);
        if (s != ES_OK)
            goto fail;
    }
fail:
    manifest_free(a);
    manifest_free(b);
    return s;
}
