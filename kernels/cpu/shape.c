/* What only moves numbers: transpose, slice, pad, concat, broadcast; constants; and the sinks. */
#include "kernels/cpu/walk.h"

static es_status copy(const kn_call *c, const kn_tensor *to, const kn_tensor *from, bool add)
{
    kn_walk w = kn_walk_of(&to->shape);
    kn_walk_add(&w, to);
    kn_walk_add(&w, from);
    kn_walk_copy(c, &w, add);
    return ES_OK;
}

es_status kn_cpu_broadcast(const kn_call *c, es_error *err)
{
    (void)err;
    return copy(c, &c->out[0], &c->in[0], c->accumulate & 1);
}

es_status kn_cpu_output(const kn_call *c, es_error *err)
{
    (void)err;
    return copy(c, &c->out[0], &c->in[0], false);
}

es_status kn_cpu_accumulate(const kn_call *c, es_error *err)
{
    (void)err;
    return copy(c, &c->out[0], &c->in[1], true);
}

es_status kn_cpu_transpose(const kn_call *c, es_error *err)
{
    (void)err;
    kn_walk w = kn_walk_of(&c->out[0].shape);
    int64_t stride[KN_RANK_MAX] = {0};
    for (int i = 0; i < c->out[0].shape.rank; i++)
        stride[i] = c->in[0].stride[c->a->perm[i]];
    kn_walk_add(&w, &c->out[0]);
    kn_walk_add_strides(&w, c->in[0].p, sizeof(float), stride);
    kn_walk_copy(c, &w, c->accumulate & 1);
    return ES_OK;
}

es_status kn_cpu_slice(const kn_call *c, es_error *err)
{
    (void)err;
    float *from = kn_fo(&c->in[0]);
    for (int i = 0; i < c->in[0].shape.rank; i++)
        from += c->in[0].stride[i] * c->a->box.start[i];
    kn_walk w = kn_walk_of(&c->out[0].shape);
    kn_walk_add(&w, &c->out[0]);
    kn_walk_add_strides(&w, from, sizeof(float), c->in[0].stride);
    kn_walk_copy(c, &w, c->accumulate & 1);
    return ES_OK;
}

/* `part` into the box of `whole` that starts at start[]. */
static void put(const kn_call *c, const kn_tensor *whole, const int32_t *start, const kn_tensor *part, bool add)
{
    float *to = kn_fo(whole);
    for (int i = 0; i < whole->shape.rank; i++)
        to += whole->stride[i] * start[i];
    kn_walk w = kn_walk_of(&part->shape);
    kn_walk_add_strides(&w, to, sizeof(float), whole->stride);
    kn_walk_add(&w, part);
    kn_walk_copy(c, &w, add);
}

es_status kn_cpu_pad(const kn_call *c, es_error *err)
{
    (void)err;
    const bool add = c->accumulate & 1;
    if (!add)
        memset(c->out[0].p, 0, sizeof(float) * (size_t)kn_count(&c->out[0]));
    put(c, &c->out[0], c->a->box.start, &c->in[0], add);
    return ES_OK;
}

es_status kn_cpu_concat(const kn_call *c, es_error *err)
{
    (void)err;
    int32_t start[KN_RANK_MAX] = {0};
    for (int i = 0; i < c->n_in; i++) {
        put(c, &c->out[0], start, &c->in[i], c->accumulate & 1);
        start[c->a->axis] += c->in[i].shape.d[c->a->axis];
    }
    return ES_OK;
}

es_status kn_cpu_constant(const kn_call *c, es_error *err)
{
    (void)err;
    float *y = kn_fo(&c->out[0]);
    const int64_t count = kn_count(&c->out[0]);
    for (int64_t i = 0; i < count; i++)
        y[i] = c->a->alpha;
    return ES_OK;
}

static void blend_body(const kn_block *b, const void *ctx)
{
    const float coef = *(const float *)ctx;
    for (int64_t r = 0; r < b->rows; r++) {
        float *p = (float *)(void *)b->p[0] + r * b->row[0];
        const float *v = (const float *)(void *)b->p[1] + r * b->row[1];
        for (int64_t i = 0; i < b->cols; i++) {
            float *to = &p[i * b->col[0]], x = v[i * b->col[1]];
            *to = coef == 1.0f ? x : *to + coef * (x - *to); /* coefficient 1 is assignment, exactly */
        }
    }
}

es_status kn_cpu_blend(const kn_call *c, es_error *err)
{
    (void)err;
    float coef = *kn_f(&c->in[1]);
    kn_walk w = kn_walk_of(&c->out[0].shape);
    kn_walk_add(&w, &c->out[0]);
    kn_walk_add(&w, &c->in[0]);
    kn_walk_run(c, &w, blend_body, &coef);
    return ES_OK;
}
