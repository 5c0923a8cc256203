/* The cost model: one visitor of the walk. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "supernet/space/cost.h"

int64_t sn_op_params(const sn_op *op)
{
    const sn_val *x = &op->x[0], *y = &op->out;
    switch (op->kind) {
    case SN_OP_CONV: return (int64_t)op->k * op->k * (x->c / op->groups) * y->c;
    case SN_OP_DEPTHWISE: return (int64_t)op->k * op->k * x->c;
    case SN_OP_LINEAR: return (int64_t)x->c * y->c;
    case SN_OP_BIAS: return y->c;
    case SN_OP_NORM: return op->affine ? 2 * (int64_t)y->c : 0;
    case SN_OP_LAYER_NORM: return y->c;
    case SN_OP_EMBED: return (int64_t)(op->symbols + y->w) * y->c; /* the table and the positions */
    default: return 0;
    }
}

int64_t sn_op_macs(const sn_space *sp, const sn_op *op)
{
    switch (op->kind) {
    case SN_OP_CONV:
    case SN_OP_DEPTHWISE: return sn_op_params(op) * op->out.h * op->out.w;
    case SN_OP_LINEAR:
        return sn_op_params(op) * op->out.h * op->out.w + (op->classifier && sp->spec->count_bias ? op->out.c : 0);
    case SN_OP_TIED: return (int64_t)op->x[0].c * op->out.c * op->out.h * op->out.w;
    case SN_OP_ATTENTION: { /* of every query with the keys that it sees, and of their values */
        int64_t t = (int64_t)op->out.h * op->out.w;
        return t * (t + 1) / 2 * 2 * op->out.c;
    }
    default: return 0;
    }
}

/* For the peak of activations every value's last use must be known, so the walk is recorded first. Values are numbered from 1. */
enum { VALUES_FIRST = 256, VALUES_MAX = 16384 };
typedef struct value {
    int64_t bytes;
    int32_t last; /* the last value made from it */
    int32_t x[KN_IN_MAX];
    int8_t n;
    bool in_place; /* the op that makes it may write over an input */
} value;
typedef struct counter {
    sn_cost *cost;
    value *value; /* cap of them */
    int values, cap;
} counter;

static value *next_value(counter *c, sn_walk *w)
{
    if (c->values + 1 >= VALUES_MAX) {
        sn_walk_fail(w, "more than %d layers", VALUES_MAX);
        return NULL;
    }
    if (c->values + 1 >= c->cap) {
        c->cap = c->cap ? 2 * c->cap : VALUES_FIRST;
        c->value = es_xrealloc(c->value, (size_t)c->cap * sizeof *c->value);
        c->value[0] = (value){0}; /* no value */
    }
    return &c->value[++c->values];
}

static uint32_t count(sn_walk *w, const sn_op *op)
{
    counter *c = w->ctx;
    c->cost->params += sn_op_params(op);
    c->cost->macs += sn_op_macs(w->space, op);
    value *v = next_value(c, w);
    if (!v)
        return 0;
    v->n = (int8_t)op->n;
    v->in_place = op->kind == SN_OP_BIAS || op->kind == SN_OP_NORM || op->kind == SN_OP_ACT ||
                  op->kind == SN_OP_DROPOUT || op->kind == SN_OP_DROP_PATH || op->kind == SN_OP_FLATTEN ||
                  op->kind == SN_OP_OUTPUT || op->kind == SN_OP_SCALE || op->kind == SN_OP_ADD;
    v->bytes = 4 * (int64_t)op->out.h * op->out.w * op->out.c;
    v->last = c->values;
    for (int i = 0; i < op->n; i++) {
        v->x[i] = (int32_t)op->x[i].ref;
        c->value[v->x[i]].last = c->values;
    }
    return (uint32_t)c->values;
}

/* The most that is alive while one layer runs. Elementwise layers write over an input that nothing needs afterwards. */
static int64_t peak_bytes(const counter *c)
{
    int64_t alive = 0, peak = 0;
    for (int i = 1; i <= c->values; i++) {
        const value *v = &c->value[i];
        bool over = false;
        for (int j = 0; j < v->n; j++)
            over |= v->in_place && c->value[v->x[j]].last == i && c->value[v->x[j]].bytes == v->bytes;
        alive += v->bytes;
        int64_t now = over ? alive - v->bytes : alive;
        peak = now > peak ? now : peak;
        for (int j = 0; j < v->n; j++) {
            bool again = false;
            for (int k = 0; k < j; k++)
                again |= v->x[k] == v->x[j];
            if (c->value[v->x[j]].last == i && !again)
                alive -= c->value[v->x[j]].bytes;
        }
    }
    return peak;
}

es_status sn_space_cost(const sn_space *sp, const sr_arch *a, sn_cost *out, es_error *err)
{
    *out = (sn_cost){0};
    counter c = {.cost = out};
    sn_walk w = {.space = sp, .arch = a, .emit = count, .ctx = &c};
    es_status s = sn_walk_run(&w, err);
    if (s == ES_OK)
        out->activation_bytes = peak_bytes(&c);
    out->layers = c.values;
    for (int v = 1; v <= c.values && s == ES_OK; v++)
        out->layers_bytes += c.value[v].bytes;
    free(c.value);
    return s;
}

/* A field of a CSV line: quoted where it must be (RFC 4180). */
static void add_csv(es_str *out, const char *text, size_t n)
{
    if (!memchr(text, ',', n) && !memchr(text, '"', n)) {
        es_str_addn(out, text, n);
        return;
    }
    es_str_add(out, "\"");
    for (size_t i = 0; i < n; i++)
        es_str_addn(out, text[i] == '"' ? "\"\"" : text + i, text[i] == '"' ? 2 : 1);
    es_str_add(out, "\"");
}

/* A line may be quoted as in a CSV file: the text inside. */
static char *line_text(const char *line, size_t n)
{
    while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == ' ' || line[n - 1] == '\t'))
        n--;
    if (n >= 2 && line[0] == '"' && line[n - 1] == '"') {
        line++;
        n -= 2;
    }
    return strndup(line, n);
}

es_status sn_cost_csv(const sn_space *sp, const char *name, const char *archs, size_t n, es_str *out, es_error *err)
{
    sr_arch *a = sr_arch_new(sn_space_choices(sp));
    es_status s = ES_OK;
    int number = 0;
    es_str_add(out, "architecture,params,macs,activation_bytes\n");
    for (const char *at = archs, *end = archs + n; at < end && s == ES_OK;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t len = stop ? (size_t)(stop - at) : (size_t)(end - at);
        char *text = line_text(at, len);
        sn_cost c;
        number++;
        at += len + (stop != NULL);
        if (*text) {
            s = sn_arch_parse(sp, text, a, err);
            if (s == ES_OK)
                s = sn_space_cost(sp, a, &c, err);
            if (s == ES_OK) {
                add_csv(out, text, strlen(text));
                es_str_addf(out, ",%" PRId64 ",%" PRId64 ",%" PRId64 "\n", c.params, c.macs, c.activation_bytes);
            } else {
                char where[128];
                snprintf(where, sizeof where, "%s:%d", name, number);
                es_at(err, s, where);
            }
        }
        free(text);
    }
    free(a);
    return s;
}
