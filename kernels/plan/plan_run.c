/* Running a plan: bases are bound once, then every step is a few additions and a call. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "kernels/plan/plan_internal.h"

struct kn_workspace {
    kn_device *dev;
    void *p;
    size_t bytes;
};

es_status kn_workspace_new(kn_device *dev, kn_workspace **out, es_error *err)
{
    (void)err;
    *out = es_xcalloc(1, sizeof **out);
    (*out)->dev = dev;
    return ES_OK;
}

void kn_workspace_destroy(kn_workspace **ws)
{
    if (*ws == NULL)
        return;
    kn_device_free((*ws)->dev, (*ws)->p);
    free(*ws);
    *ws = NULL;
}

es_status kn_workspace_reserve(kn_workspace *ws, size_t bytes, es_error *err)
{
    if (bytes <= ws->bytes)
        return ES_OK;
    ES_RETURN(kn_device_sync(ws->dev, err)); /* work under way may still use it */
    kn_device_free(ws->dev, ws->p);
    ws->p = NULL;
    ws->bytes = 0;
    ES_RETURN(kn_device_alloc(ws->dev, bytes, &ws->p, err));
    ws->bytes = bytes;
    return ES_OK;
}

static es_status bind_weights(const kn_plan *p, const kn_binding *b, char **base, es_error *err)
{
    for (int set = 0; set < KN_SETS; set++) {
        kn_weights *w = b->weights[set];
        bool values = p->used[KN_BASE_VALUES + set], grads = p->used[KN_BASE_GRADS + set],
             shadow = p->used[KN_BASE_SHADOW + set];
        if (!values && !grads && !shadow)
            continue;
        if (w == NULL)
            return es_fail(err, ES_INVALID, "run", "the plan reads or writes parameter set %d, but none is bound", set);
        if (kn_weights_params(w) != p->w->params[set])
            return es_fail(err, ES_INVALID, "run",
                           "parameter set %d is bound to weights of other parameters than the graph was built with",
                           set);
        if (kn_weights_device(w) != p->dev)
            return es_fail(err, ES_INVALID, "run", "parameter set %d lives on device %s, the plan is for %s", set,
                           kn_device_name(kn_weights_device(w)), p->dev->name);
        base[KN_BASE_VALUES + set] = (char *)kn_weights_values(w);
        base[KN_BASE_GRADS + set] = (char *)kn_weights_grads(w);
        base[KN_BASE_SHADOW + set] = kn_weights_shadow(w);
        if (grads && base[KN_BASE_GRADS + set] == NULL)
            return es_fail(err, ES_INVALID, "run",
                           "the plan adds to gradients of set %d, whose weights were made without (KN_WITH_GRAD)", set);
    }
    return ES_OK;
}

static es_status bind(kn_plan *p, kn_workspace *ws, const kn_binding *b, char **base, es_error *err)
{
    size_t need = kn_plan_workspace_bytes(p);
    if (need > 0 && (ws == NULL || ws->bytes < need))
        return es_fail(err, ES_INVALID, "run", "the plan needs a workspace of %zu bytes, %zu are reserved", need,
                       ws == NULL ? 0 : ws->bytes);
    base[KN_BASE_NONE] = NULL;
    base[KN_BASE_WORKSPACE] = ws == NULL ? NULL : ws->p;
    const float *scalars = b->scalar;
    if (p->dev->vt->begin != NULL)
        ES_RETURN(p->dev->vt->begin(p->dev, p, b, &scalars, err));
    base[KN_BASE_SCALARS] = (char *)(uintptr_t)scalars; /* only ever read */
    ES_RETURN(bind_weights(p, b, base, err));
    for (int i = 0; i < KN_SLOTS; i++) {
        base[KN_BASE_IN + i] = (char *)(uintptr_t)b->in[i]; /* only ever read */
        base[KN_BASE_OUT + i] = b->out[i];
        if (p->used[KN_BASE_IN + i] && b->in[i] == NULL)
            return es_fail(err, ES_INVALID, "run", "input slot %d is not bound", i);
        if (p->used[KN_BASE_OUT + i] && b->out[i] == NULL)
            return es_fail(err, ES_INVALID, "run", "output slot %d is not bound", i);
    }
    return ES_OK;
}

/* Goes past the points up to `done` kernels: told to whom it may concern, or kept in the recording. */
static es_status pass_points(kn_plan *p, const kn_binding *b, bool recording, uint32_t done, int *next, es_error *err)
{
    while (*next < b->n_points && b->points[*next] <= done) {
        int i = (*next)++;
        ES_RETURN(recording ? p->dev->vt->point(p->dev, i, err) : b->after(b->after_ctx, b->points[i], err));
    }
    return ES_OK;
}

/* Every kernel by itself. */
static es_status give(kn_plan *p, char *const *base, const kn_binding *b, bool recording, es_error *err)
{
    int point = 0;
    ES_RETURN(pass_points(p, b, recording, 0, &point, err));
    p->dev->count.calls += p->n_steps;
    for (kn_step *s = p->steps, *end = s + p->n_steps; s < end; s++) {
        for (int k = 0; k < s->call.n_in; k++)
            s->call.in[k].p = base[s->in[k].base] + s->in[k].offset;
        for (int k = 0; k < s->call.n_out; k++)
            s->call.out[k].p = base[s->out[k].base] + s->out[k].offset;
        s->call.scratch = base[s->scratch.base] + s->scratch.offset;
        s->call.seed = b->seed;
        s->call.step = b->step;
        s->call.now = p->dev->vt->begin != NULL ? base[KN_BASE_SCALARS] : NULL;
        es_status status = s->run(&s->call, err);
        if (status != ES_OK)
            return es_at(err, status, kn_op_table[p->w->nodes[s->node].op].name);
        ES_RETURN(pass_points(p, b, recording, (uint32_t)(s - p->steps) + 1, &point, err));
    }
    ES_ASSERT(point == b->n_points);
    return ES_OK;
}

/* The recording was given to the device: its points, one by one. */
static es_status replayed_points(kn_plan *p, const kn_binding *b, es_error *err)
{
    es_status s = ES_OK;
    for (int i = 0; i < b->n_points && s == ES_OK; i++) {
        p->dev->vt->reached(p->dev, p->recording, i);
        s = b->after(b->after_ctx, b->points[i], err);
    }
    p->dev->vt->reached(p->dev, NULL, 0);
    return s;
}

void kn_plan_forget(kn_plan *p)
{
    if (p->recording != NULL)
        p->dev->vt->forget(p->dev, p->recording);
    p->recording = NULL;
    p->runs = 0;
}

/* What was recorded holds addresses and points: any other one than the last run's and it is forgotten. */
static void compare_run(kn_plan *p, char *const *base, const kn_binding *b)
{
    char *used[KN_BASE_COUNT];
    uint32_t points[KN_POINTS_MAX] = {0};
    for (int i = 0; i < KN_BASE_COUNT; i++)
        used[i] = i == KN_BASE_WORKSPACE || p->used[i] ? base[i] : NULL;
    if (b->n_points > 0)
        memcpy(points, b->points, (size_t)b->n_points * sizeof *points);
    if (memcmp(used, p->bound, sizeof used) == 0 && b->n_points == p->n_points &&
        memcmp(points, p->points, sizeof points) == 0)
        return;
    kn_plan_forget(p);
    memcpy(p->bound, used, sizeof used);
    memcpy(p->points, points, sizeof points);
    p->n_points = b->n_points;
}

/* A kernel that fails here, because it may not be recorded, is called again by itself and says so if it fails there, too. The plan is not recorded again. */
static es_status record(kn_plan *p, char *const *base, const kn_binding *b, es_error *err)
{
    kn_device *d = p->dev;
    const uint64_t calls = d->count.calls;
    es_error none;
    ES_RETURN(d->vt->record(d, b->n_points, err));
    es_status s = give(p, base, b, true, &none);
    ES_RETURN(d->vt->recorded(d, &p->recording, err));
    d->count.calls = calls;
    if (s == ES_OK)
        return ES_OK;
    kn_plan_forget(p);
    p->unrecordable = true;
    es_log(ES_LOG_WARN, "plan not recorded kernels=%u device=%s: its kernels are launched one by one: %s: %s",
           (unsigned)p->n_steps, d->name, none.where, none.text);
    return ES_OK;
}

es_status kn_run(kn_plan *p, kn_workspace *ws, const kn_binding *b, es_error *err)
{
    char *base[KN_BASE_COUNT] = {NULL};
    ES_ASSERT(b->n_points >= 0 && b->n_points <= KN_POINTS_MAX);
    ES_RETURN(bind(p, ws, b, base, err));
    if (!p->options.repeats || p->dev->vt->record == NULL)
        return give(p, base, b, false, err);
    compare_run(p, base, b);
    if (p->recording == NULL && p->runs++ == 1 && !p->unrecordable)
        ES_RETURN(record(p, base, b, err));
    if (p->recording == NULL)
        return give(p, base, b, false, err);
    p->dev->count.replays++;
    ES_RETURN(p->dev->vt->replay(p->dev, p->recording, err));
    return replayed_points(p, b, err);
}
