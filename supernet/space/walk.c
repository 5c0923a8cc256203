#include "supernet/space/walk.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *const sn_op_names[] = {"input",      "resize",     "conv",      "depthwise", "linear",      "bias",
                                   "batch_norm", "activation", "max_pool",  "avg_pool",  "global_pool", "flatten",
                                   "add",        "scale",      "concat",    "zero",      "dropout",     "drop_path",
                                   "embed",      "layer_norm", "attention", "logits",    "output"};

void sn_walk_name(const sn_walk *w, const sn_op *op, char *buf, size_t size)
{
    const sn_unit *u = w->unit;
    /* Asked of the spec, not of the field: a fixed space has the names of the space it was cut from. */
    bool several = u && u->stage->range[SN_BLOCK].n > 1;
    const char *kind = several ? sn_block_kinds[u->field[SN_BLOCK].values[w->kind]]->name : NULL;
    snprintf(buf, size, "%s%s%s%s%s%s%s", u ? u->name : "", kind ? "." : "", kind ? kind : "", w->scope ? "." : "",
             w->scope ? w->scope : "", op->name && u ? "." : "", op->name ? op->name : "");
}

es_status sn_walk_fail(sn_walk *w, const char *fmt, ...)
{
    if (w->status != ES_OK)
        return w->status;
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    w->status = es_fail(w->err, ES_INVALID, w->unit ? w->unit->name : NULL, "%s", text);
    return w->status;
}

static sn_val emit(sn_walk *w, sn_op *op, int h, int wd, int c)
{
    op->out = (sn_val){.h = h, .w = wd, .c = c};
    if (w->status != ES_OK)
        return op->out;
    if (h < 1 || wd < 1 || c < 1 || c > SN_CHANNELS_MAX) {
        sn_walk_fail(w,
                     "%s of %dx%dx%d gives %dx%dx%d: the input is too small for this kernel and stride, or has too "
                     "many channels (at most %d)",
                     sn_op_names[op->kind], op->x[0].h, op->x[0].w, op->x[0].c, h, wd, c, SN_CHANNELS_MAX);
        return op->out;
    }
    if (op->slot >= 0 || op->kind == SN_OP_TIED)
        op->slot += w->unit->slot[w->kind];
    op->out.ref = w->emit(w, op);
    return op->out;
}

static int out_size(const sn_op *op, int in)
{
    int span = in + 2 * op->pad - op->dilation * (op->k - 1) - 1;
    return span < 0 ? 0 : span / op->stride + 1;
}

/* An op that slides a window over its input. */
static sn_val slide(sn_walk *w, sn_op *op, sn_window win, int channels)
{
    op->k = win.k;
    op->stride = win.stride ? win.stride : 1;
    op->dilation = win.dilation ? win.dilation : 1;
    op->pad = win.pad == SN_PAD_SAME ? op->dilation * (win.k - 1) / 2 : win.pad;
    return emit(w, op, out_size(op, op->x[0].h), out_size(op, op->x[0].w), channels);
}

sn_val sn_walk_conv(sn_walk *w, sn_val x, int slot, const char *name, int out, sn_window win)
{
    int groups = win.groups ? win.groups : 1;
    if (w->status == ES_OK && (x.c % groups || out % groups)) {
        sn_walk_fail(w, "%d groups do not divide %d input and %d output channels", groups, x.c, out);
        return x;
    }
    sn_op op = {.kind = SN_OP_CONV, .name = name, .slot = slot, .n = 1, .x = {x}, .groups = groups};
    return slide(w, &op, win, out);
}

sn_val sn_walk_depthwise(sn_walk *w, sn_val x, int slot, const char *name, sn_window win)
{
    sn_op op = {.kind = SN_OP_DEPTHWISE, .name = name, .slot = slot, .n = 1, .x = {x}, .groups = x.c};
    return slide(w, &op, win, x.c);
}

sn_val sn_walk_linear(sn_walk *w, sn_val x, int slot, const char *name, int out, bool classifier)
{
    sn_op op = {.kind = SN_OP_LINEAR, .name = name, .slot = slot, .n = 1, .x = {x}, .classifier = classifier};
    return emit(w, &op, x.h, x.w, out);
}

sn_val sn_walk_bias(sn_walk *w, sn_val x, int slot, const char *name, kn_act act)
{
    sn_op op = {.kind = SN_OP_BIAS, .name = name, .slot = slot, .n = 1, .x = {x}, .act = act};
    return emit(w, &op, x.h, x.w, x.c);
}

sn_val sn_walk_norm(sn_walk *w, sn_val x, int slot, const char *name, kn_act act, bool affine, bool zero_gamma)
{
    sn_op op = {.kind = SN_OP_NORM,
                .name = name,
                .slot = slot,
                .n = 1,
                .x = {x},
                .act = act,
                .affine = affine,
                .zero_gamma = zero_gamma};
    return emit(w, &op, x.h, x.w, x.c);
}

sn_val sn_walk_act(sn_walk *w, sn_val x, kn_act act)
{
    if (act == KN_ACT_NONE)
        return x;
    sn_op op = {.kind = SN_OP_ACT, .name = sn_act_names[act], .slot = -1, .n = 1, .x = {x}, .act = act};
    return emit(w, &op, x.h, x.w, x.c);
}

sn_val sn_walk_pool(sn_walk *w, sn_val x, bool max, sn_window win)
{
    sn_op op = {.kind = max ? SN_OP_MAX_POOL : SN_OP_AVG_POOL, .name = "pool", .slot = -1, .n = 1, .x = {x}};
    return slide(w, &op, win, x.c);
}

sn_val sn_walk_global_pool(sn_walk *w, sn_val x)
{
    sn_op op = {.kind = SN_OP_GLOBAL_POOL, .name = "pool", .slot = -1, .n = 1, .x = {x}};
    return emit(w, &op, 1, 1, x.c);
}

sn_val sn_walk_flatten(sn_walk *w, sn_val x)
{
    sn_op op = {.kind = SN_OP_FLATTEN, .name = "flatten", .slot = -1, .n = 1, .x = {x}};
    return emit(w, &op, 1, 1, x.h * x.w * x.c);
}

sn_val sn_walk_add(sn_walk *w, sn_val a, sn_val b)
{
    if (w->status == ES_OK && (a.h != b.h || a.w != b.w || a.c != b.c))
        sn_walk_fail(w, "%dx%dx%d cannot be added to %dx%dx%d", a.h, a.w, a.c, b.h, b.w, b.c);
    sn_op op = {.kind = SN_OP_ADD, .name = "add", .slot = -1, .n = 2, .x = {a, b}};
    return emit(w, &op, a.h, a.w, a.c);
}

sn_val sn_walk_concat(sn_walk *w, const sn_val *x, int n)
{
    sn_op op = {.kind = SN_OP_CONCAT, .name = "concat", .slot = -1, .n = n};
    int c = 0;
    for (int i = 0; i < n; i++) {
        op.x[i] = x[i];
        c += x[i].c;
    }
    return n == 1 ? x[0] : emit(w, &op, x[0].h, x[0].w, c);
}

sn_val sn_walk_zero(sn_walk *w, int h, int wd, int c)
{
    sn_op op = {.kind = SN_OP_ZERO, .name = "zero", .slot = -1};
    return emit(w, &op, h, wd, c);
}

sn_val sn_walk_dropout(sn_walk *w, sn_val x, int slot, float rate, bool per_channel)
{
    if (rate <= 0)
        return x;
    sn_op op = {.kind = SN_OP_DROPOUT,
                .name = "dropout",
                .slot = slot,
                .n = 1,
                .x = {x},
                .rate = rate,
                .per_channel = per_channel};
    return emit(w, &op, x.h, x.w, x.c);
}

sn_val sn_walk_drop_path(sn_walk *w, sn_val x, int slot, float rate)
{
    if (rate <= 0)
        return x;
    sn_op op = {.kind = SN_OP_DROP_PATH, .name = "drop_path", .slot = slot, .n = 1, .x = {x}, .rate = rate};
    return emit(w, &op, x.h, x.w, x.c);
}

sn_val sn_walk_embed(sn_walk *w, sn_val tokens, int slot, const char *name, int width)
{
    sn_op op = {
        .kind = SN_OP_EMBED, .name = name, .slot = slot, .n = 1, .x = {tokens}, .symbols = w->space->spec->vocabulary};
    return emit(w, &op, tokens.h, tokens.w, width);
}

sn_val sn_walk_layer_norm(sn_walk *w, sn_val x, int slot, const char *name)
{
    sn_op op = {.kind = SN_OP_LAYER_NORM, .name = name, .slot = slot, .n = 1, .x = {x}};
    return emit(w, &op, x.h, x.w, x.c);
}

sn_val sn_walk_attention(sn_walk *w, sn_val qkv, int heads)
{
    sn_op op = {.kind = SN_OP_ATTENTION, .name = "attention", .slot = -1, .n = 1, .x = {qkv}, .heads = heads};
    return emit(w, &op, qkv.h, qkv.w, qkv.c / 3);
}

sn_val sn_walk_tied(sn_walk *w, sn_val x, const sn_unit *embedding, int out)
{
    sn_op op = {.kind = SN_OP_TIED,
                .name = "logits",
                .slot = embedding->slot[0] - w->unit->slot[w->kind], /* another unit's */
                .n = 1,
                .x = {x}};
    return emit(w, &op, x.h, x.w, out);
}

int sn_round_channels(int c, int divisor)
{
    if (divisor <= 1)
        return c < 1 ? 1 : c;
    int r = (c + divisor / 2) / divisor * divisor;
    if (r < divisor)
        r = divisor;
    return 10 * r < 9 * c ? r + divisor : r;
}

sn_val sn_walk_se(sn_walk *w, sn_val x, int slot)
{
    if (!w->set[SN_SE])
        return x;
    const sn_block_options *o = &w->unit->stage->o;
    kn_act act = o->se_act < 0 ? (kn_act)w->set[SN_ACT] : (kn_act)o->se_act;
    sn_val s = sn_walk_global_pool(w, x);
    s = sn_walk_linear(w, s, slot, "squeeze", sn_round_channels(x.c / o->se_ratio, o->se_divisor), false);
    s = sn_walk_bias(w, s, slot, "squeeze", act);
    s = sn_walk_linear(w, s, slot + 1, "excite", x.c, false);
    s = sn_walk_bias(w, s, slot + 1, "excite", (kn_act)o->se_gate);
    sn_op op = {.kind = SN_OP_SCALE, .name = "scale", .slot = -1, .n = 2, .x = {x, s}};
    return emit(w, &op, x.h, x.w, x.c);
}

bool sn_walk_shortcut(sn_walk *w, sn_val x, sn_val y, int slot, sn_val *out)
{
    const sn_block_options *o = &w->unit->stage->o;
    bool declare = !w->arch, same_size = x.h == y.h && x.w == y.w && w->unit->stride == 1;
    bool same = same_size && x.c == y.c && !(declare && w->unit->reshapes);
    *out = x;
    if (o->shortcut == SN_SHORTCUT_NONE)
        return false;
    if (same)
        return true;
    if (o->shortcut == SN_SHORTCUT_IDENTITY)
        return same_size && x.c == y.c;
    int s = w->unit->stride;
    if (o->shortcut == SN_SHORTCUT_CONV) {
        *out = sn_walk_conv(w, x, slot, "shortcut", y.c, (sn_window){.k = 1, .stride = s});
        *out = sn_walk_norm(w, *out, slot + 1, "shortcut_norm", KN_ACT_NONE, o->affine, false);
        return true;
    }
    if (s > 1) /* odd sizes: one padded row, not averaged in */
        *out = sn_walk_pool(w, *out, false, (sn_window){.k = s, .stride = s, .pad = x.h % s || x.w % s ? s / 2 : 0});
    if (x.c != y.c || (declare && w->unit->reshapes))
        *out = sn_walk_conv(w, *out, slot, "shortcut", y.c, (sn_window){.k = 1});
    return true;
}

sn_val sn_walk_conv_act(sn_walk *w, sn_val x, int slot, const sn_conv_act *c)
{
    const sn_block_options *o = &w->unit->stage->o;
    sn_window win = {.k = c->k, .stride = c->stride, .groups = c->groups, .pad = o->padding, .dilation = o->dilation};
    sn_val y = sn_walk_conv(w, x, slot, c->conv, c->out, win);
    if (o->bias)
        y = sn_walk_bias(w, y, slot, c->conv, o->norm ? KN_ACT_NONE : c->act);
    if (o->norm)
        y = sn_walk_norm(w, y, slot + 1, c->norm, c->act, o->affine, c->zero_gamma);
    else if (!o->bias)
        y = sn_walk_act(w, y, c->act);
    return y;
}

static sn_val walk_input(sn_walk *w)
{
    const sn_spec *spec = w->space->spec;
    sn_op in = {.kind = SN_OP_INPUT, .name = spec->vocabulary ? "tokens" : "images", .slot = -1};
    sn_val x = emit(w, &in, spec->height, spec->width, spec->channels);
    const sn_field *f = &w->space->resolution;
    int r = f->n == 0 ? spec->height : w->arch ? sn_field_value(f, w->arch) : sn_field_largest(f);
    if (f->n == 0 || (r == spec->height && r == spec->width))
        return x;
    sn_op op = {.kind = SN_OP_RESIZE, .name = "resize", .slot = -1, .n = 1, .x = {x}};
    return emit(w, &op, r, r, x.c);
}

static uint32_t emit_nothing(sn_walk *w, const sn_op *op)
{
    (void)w, (void)op;
    return 0;
}

sn_val sn_walk_block(sn_walk *w, const sn_unit *u, int kind, sn_val x)
{
    w->unit = u;
    w->kind = kind;
    return sn_block_kinds[u->field[SN_BLOCK].values[kind]]->walk(w, u, x);
}

static sn_val walk_unit(sn_walk *w, const sn_unit *u, sn_val x)
{
    for (int f = 0; f < SN_FIELDS; f++)
        w->set[f] = u->field[f].n == 0 ? 0
                    : w->arch          ? sn_field_value(&u->field[f], w->arch)
                                       : sn_field_largest(&u->field[f]);
    sn_val y = x;
    const sn_field *block = &u->field[SN_BLOCK];
    if (w->arch) {
        y = sn_walk_block(w, u, block->gene < 0 ? 0 : w->arch->gene[block->gene], x);
    } else { /* all alternatives; the widest goes on */
        sn_val best = {0};
        for (int kind = 0; kind < block->n; kind++) {
            y = sn_walk_block(w, u, kind, x);
            if (y.c > best.c)
                best = y;
        }
        y = best;
    }
    if (w->unit_done && w->status == ES_OK)
        w->unit_done(w, u, x, y);
    return y;
}

/* A unit that is left out must not change the shape: walked with a visitor that does nothing, to see. */
static sn_val skip_unit(sn_walk *w, const sn_unit *u, sn_val x)
{
    sn_walk dry = *w;
    dry.emit = emit_nothing;
    dry.unit_done = NULL;
    dry.boundary = NULL;
    sn_val y = walk_unit(&dry, u, x);
    w->status = dry.status;
    if (y.h != x.h || y.w != x.w || y.c != x.c)
        sn_walk_fail(w, "cannot be left out: it makes %dx%dx%d of %dx%dx%d", y.h, y.w, y.c, x.h, x.w, x.c);
    return x;
}

es_status sn_walk_run(sn_walk *w, es_error *err)
{
    w->err = err;
    w->status = ES_OK;
    w->unit = NULL;
    w->scope = NULL;
    sn_val x = walk_input(w);
    int walked = 0;
    for (int i = 0; i < w->space->units && w->status == ES_OK; i++) {
        const sn_unit *u = &w->space->unit[i];
        if (w->arch && u->depth && sn_field_value(u->depth, w->arch) <= u->layer)
            continue;
        int flags = w->unit_flags ? w->unit_flags[i] : 0;
        w->unit = u;
        w->unit_index = i;
        w->frozen = flags & SN_UNIT_FROZEN;
        if (w->boundary && !(flags & SN_UNIT_SKIP))
            x.ref = w->boundary(w, walked++, x);
        x = flags & SN_UNIT_SKIP ? skip_unit(w, u, x) : walk_unit(w, u, x);
    }
    if (w->status != ES_OK)
        return w->status; /* w->unit says where */
    if (w->boundary)
        x.ref = w->boundary(w, walked, x);
    sn_op out = {.kind = SN_OP_OUTPUT, .name = "logits", .slot = -1, .n = 1, .x = {x}};
    w->unit = NULL;
    w->kind = 0;
    emit(w, &out, x.h, x.w, x.c);
    return w->status;
}
