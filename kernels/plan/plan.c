#include "kernels/plan/plan.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/plan/plan_internal.h"

void kn_plan_room(void *array, uint32_t *capacity, uint32_t count, size_t size)
{
    void **p = array;
    if (count <= *capacity)
        return;
    *capacity = count + count / 2 + 64;
    *p = es_xrealloc(*p, *capacity * size);
}

kn_tensor kn_plan_slice(const kn_plan *p, const kn_attr *a, int64_t *offset)
{
    const kn_param_def *d = kn_params_def(p->w->params[a->set], a->param);
    kn_tensor t = {.p = NULL, .dtype = KN_F32, .shape = kn_shape_make(d->shape.rank, a->box.extent), .stride = {0}};
    int64_t step = 1;
    *offset = d->offset;
    for (int i = d->shape.rank - 1; i >= 0; i--) {
        t.stride[i] = step;
        *offset += step * a->box.start[i];
        step *= d->shape.d[i];
    }
    return t;
}

bool kn_plan_supports(const kn_plan *p, kn_op op) { return kn_op_is_view(op) || p->kernels[op].run != NULL; }

static kn_plan *plan_new(void)
{
    kn_plan *p = es_xcalloc(1, sizeof *p);
    p->w = kn_graph_new(NULL);
    p->spare = kn_graph_new(NULL);
    return p;
}

void kn_plan_destroy(kn_plan **plan)
{
    kn_plan *p = *plan;
    if (p == NULL)
        return;
    kn_plan_forget(p);
    kn_graph_destroy(&p->w);
    kn_graph_destroy(&p->spare);
    free(p->values);
    free(p->dropped);
    free(p->map);
    free(p->dense);
    free(p->uses);
    free(p->live);
    free(p->holes);
    free(p->steps);
    free(p);
    *plan = NULL;
}

static void drop(void *array, uint32_t *capacity)
{
    void **p = array;
    free(*p);
    *p = NULL;
    *capacity = 0;
}

void kn_plan_trim(kn_plan *p)
{
    kn_graph *w = p->w;
    kn_graph_destroy(&p->spare);
    drop(&p->values, &p->cap_values);
    drop(&p->dropped, &p->cap_nodes);
    drop(&p->map, &p->cap_map);
    drop(&p->dense, &p->cap_dense);
    drop(&p->uses, &p->cap_uses);
    drop(&p->live, &p->cap_live);
    drop(&p->holes, &p->cap_holes);
    drop(&w->values, &w->cap_values);
    w->n_values = 0;
    if (w->n_nodes == 0 || p->n_steps == 0)
        return;
    w->cap_nodes = w->n_nodes;
    w->nodes = es_xrealloc(w->nodes, w->cap_nodes * sizeof *w->nodes);
    p->cap_steps = p->n_steps;
    p->steps = es_xrealloc(p->steps, p->cap_steps * sizeof *p->steps);
    for (uint32_t i = 0; i < p->n_steps; i++)
        p->steps[i].call.a = &w->nodes[p->steps[i].node].a;
}

/* One record per value, reads counted, sources and aliases placed. */
static void start_values(kn_plan *p)
{
    const kn_graph *w = p->w;
    kn_plan_room(&p->values, &p->cap_values, w->n_values, sizeof *p->values);
    kn_plan_room(&p->dropped, &p->cap_nodes, w->n_nodes, sizeof *p->dropped);
    memset(p->values, 0, w->n_values * sizeof *p->values);
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        const kn_node *n = &w->nodes[i];
        p->dropped[i] = kn_op_is_view(n->op);
        for (int k = 0; k < n->n_in; k++)
            p->values[n->in[k]].reads++;
        for (int k = 0; k < n->n_out; k++)
            p->values[n->out + (uint32_t)k].root = n->out + (uint32_t)k;
        kn_plan_value *v = &p->values[n->out];
        if (n->op == KN_OP_INPUT)
            v->at = (kn_ref){.base = (uint8_t)(KN_BASE_IN + n->a.slot)};
        else if (n->op == KN_OP_SCALAR)
            v->at = (kn_ref){.base = KN_BASE_SCALARS, .offset = n->a.slot * (int64_t)sizeof(float)};
        else if (n->op == KN_OP_PARAM)
            v->at = (kn_ref){.base = (uint8_t)(KN_BASE_VALUES + n->a.set)}; /* offset and strides: per reader */
        else if (n->n_in == 1 && (n->op == KN_OP_RESHAPE || n->op == KN_OP_DETACH))
            v->root = p->values[n->in[0]].root;
    }
}

es_status kn_plan_make(kn_device *dev, const kn_graph *g, const kn_plan_options *o, kn_plan **plan, es_error *err)
{
    if (*plan == NULL)
        *plan = plan_new();
    kn_plan *p = *plan;
    kn_plan_forget(p);
    if (p->spare == NULL)
        p->spare = kn_graph_new(NULL);
    p->dev = dev;
    p->kernels = dev->vt->kernels;
    p->options = o == NULL ? (kn_plan_options){.precision = KN_PRECISION_F32} : *o;
    p->n_steps = 0;
    p->unrecordable = false;
    p->n_holes = p->high = 0;
    p->live_bytes = p->live_peak = 0;
    memset(p->used, 0, sizeof p->used);
    ES_RETURN(kn_graph_status(g, err));
    if (p->options.precision != KN_PRECISION_F32 && dev->vt->store == NULL)
        return es_fail(err, ES_UNSUPPORTED, dev->name, "computes in f32 only; bf16 needs an accelerator");
    ES_RETURN(kn_plan_lower(p, g, err));
    if (dev->vt->fuse != NULL && !p->options.no_fuse)
        ES_RETURN(dev->vt->fuse(dev, p, err));
    if (dev->vt->store != NULL)
        ES_RETURN(dev->vt->store(dev, p, err));
    start_values(p);
    if (!p->options.no_fuse)
        kn_plan_fuse(p);
    return kn_plan_place(p, err);
}

kn_dtype kn_kept_dtype(kn_precision precision, const kn_shape *shape)
{
    return precision == KN_PRECISION_BF16 && shape->rank >= 2 ? KN_BF16 : KN_F32;
}

size_t kn_kept_bytes(kn_precision precision, const kn_shape *shape)
{
    return (size_t)kn_shape_count(shape) * kn_dtype_bytes(kn_kept_dtype(precision, shape));
}

size_t kn_plan_workspace_bytes(const kn_plan *p) { return (size_t)p->high * 256; }

size_t kn_plan_steps(const kn_plan *p) { return p->n_steps; }

/* The parameter whose place in the flat buffers holds this element. */
static kn_param param_at(const kn_params *params, int64_t element)
{
    kn_param low = 0, high = kn_params_count(params) - 1;
    while (low < high) {
        kn_param mid = high - (high - low) / 2;
        if (kn_params_def(params, mid)->offset <= element)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

void kn_plan_grad_steps(const kn_plan *p, int set, uint32_t *last)
{
    const kn_params *params = p->w->params[set];
    memset(last, 0, (size_t)kn_params_count(params) * sizeof *last);
    for (uint32_t i = 0; i < p->n_steps; i++)
        for (int k = 0; k < p->steps[i].call.n_out; k++)
            if (p->steps[i].out[k].base == KN_BASE_GRADS + set)
                last[param_at(params, p->steps[i].out[k].offset / (int64_t)sizeof(float))] = i + 1;
}
