/* Depthwise convolution and its two gradients, plane by plane (plane.h); with batch norm inside as fuse.h says. */
#include "kernels/cpu/fuse.h"
#include "kernels/cpu/plane.h"

enum { PLANE_BYTES = 128 << 10, JOINT_BYTES = 1 << 20 };

/* Lines per piece such that the plane they read fits the buffer. */
static kn_pieces strips(const kn_geometry *g, bool backward)
{
    int64_t all = backward ? g->h : g->oh, lines = all;
    for (; lines > 1; lines = (lines + 1) / 2)
        if (kn_window_bytes(backward ? kn_window_backward(g, 0, lines) : kn_window_forward(g, 0, lines)) <= PLANE_BYTES)
            break;
    return (kn_pieces){lines, (all + lines - 1) / lines};
}

static size_t plane_bytes(const kn_geometry *g, bool backward)
{
    int64_t lines = strips(g, backward).rows;
    return kn_window_bytes(backward ? kn_window_backward(g, 0, lines) : kn_window_forward(g, 0, lines));
}

static kn_vec *room_of(const kn_call *c, size_t bytes, size_t before)
{
    return (kn_vec *)(void *)((char *)c->scratch + before + (size_t)kn_cpu_self() * bytes);
}

static es_status check(const kn_geometry *g, es_error *err)
{
    if (g->kh * g->kw > KN_TAPS_MAX)
        return es_fail(err, ES_UNSUPPORTED, "depthwise", "kernel %d x %d: at most %d weights per channel", g->kh, g->kw,
                       KN_TAPS_MAX);
    return ES_OK;
}

/* Channels [q, q + lanes) of image `image`, normalised where coefficients are given. */
static kn_plane_source source_of(const kn_call *c, const kn_tensor *x, const kn_tensor *coef, int64_t image, int64_t q)
{
    const int64_t h = x->shape.d[1], w = x->shape.d[2], ch = x->shape.d[3];
    kn_plane_source s = {.x = kn_f(x) + image * h * w * ch + q,
                         .h = h,
                         .w = w,
                         .c = ch,
                         .lanes = (int)KN_MIN(KN_LANES, ch - q),
                         .act = c->a->act};
    if (coef && coef->p) {
        s.scale = kn_f(coef) + q;
        s.shift = kn_f(coef) + ch + q;
    }
    return s;
}

static const kn_tensor *coef_of(const kn_call *c) { return c->n_in > 2 ? &c->in[2] : NULL; }

/* --- y --- */

static kn_geometry forward_of(const kn_call *c)
{
    return kn_geometry_of(c->a, &c->in[0].shape, &c->out[0].shape, c->in[1].shape.d[0], c->in[1].shape.d[1]);
}

size_t kn_cpu_depthwise_scratch(const kn_call *c)
{
    kn_geometry g = forward_of(c);
    return (size_t)kn_cpu_threads(c) * plane_bytes(&g, false);
}

es_status kn_cpu_depthwise(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, depthwise);
    kn_geometry g = forward_of(c);
    ES_RETURN(check(&g, err));
    kn_pieces s = strips(&g, false);
    const size_t bytes = plane_bytes(&g, false);
    KN_CPU_FOR(c, p, g.n * s.count)
    {
        kn_vec *plane = room_of(c, bytes, 0);
        int64_t image = p / s.count, from = p % s.count * s.rows, to = KN_MIN(from + s.rows, g.oh);
        kn_window win = kn_window_forward(&g, from, to);
        kn_taps t;
        t.n = g.kh * g.kw;
        for (int64_t q = 0; q < g.c; q += KN_LANES) {
            kn_plane_source src = source_of(c, &c->in[0], coef_of(c), image, q);
            kn_plane_target y = {.step = g.c, .lanes = src.lanes, .add = c->accumulate & 1};
            kn_plane_fill(plane, win, &src, NULL);
            kn_plane_weights(t.weight, &c->in[1], q, src.lanes);
            for (int64_t o = from; o < to; o++) {
                for (int i = 0; i < t.n; i++)
                    t.at[i] =
                        plane + ((o - from) * g.stride + i / g.kw * g.dilation) * win.cols + i % g.kw * g.dilation;
                y.y = kn_fo(&c->out[0]) + (image * g.oh + o) * g.ow * g.c + q;
                kn_plane_line(g.stride, &t, g.ow, &y);
            }
        }
    }
    return ES_OK;
}

/* --- dx --- */

static kn_geometry dx_of(const kn_call *c)
{
    return kn_geometry_of(c->a, &c->out[0].shape, &c->in[0].shape, c->in[1].shape.d[0], c->in[1].shape.d[1]);
}

size_t kn_cpu_depthwise_dx_scratch(const kn_call *c)
{
    kn_geometry g = dx_of(c);
    return kn_back_joint(c) ? kn_cpu_depthwise_back_scratch(c) : (size_t)kn_cpu_threads(c) * plane_bytes(&g, true);
}

es_status kn_cpu_depthwise_dx(const kn_call *c, es_error *err)
{
    if (kn_back_joint(c))
        return kn_cpu_depthwise_back(c, err);
    KN_CPU_NEED_FLAT(c, depthwise_dx);
    kn_geometry g = dx_of(c);
    ES_RETURN(check(&g, err));
    kn_pieces s = strips(&g, true);
    const size_t bytes = plane_bytes(&g, true);
    KN_CPU_FOR(c, p, g.n * s.count)
    {
        kn_vec *plane = room_of(c, bytes, 0), weight[KN_TAPS_MAX];
        int64_t image = p / s.count, from = p % s.count * s.rows, to = KN_MIN(from + s.rows, g.h);
        kn_window win = kn_window_backward(&g, from, to);
        for (int64_t q = 0; q < g.c; q += KN_LANES) {
            kn_plane_source src = source_of(c, &c->in[0], NULL, image, q);
            kn_plane_target dx = {.step = g.c, .lanes = src.lanes, .add = c->accumulate & 1};
            kn_plane_fill(plane, win, &src, NULL);
            kn_plane_weights(weight, &c->in[1], q, src.lanes);
            for (int64_t h = from; h < to; h++) {
                dx.y = kn_fo(&c->out[0]) + (image * g.h + h) * g.w * g.c + q;
                kn_plane_dx_line(&g, plane, win, weight, h, &dx);
            }
        }
    }
    return ES_OK;
}

/* --- dw --- */

static kn_geometry dw_of(const kn_call *c)
{
    return kn_geometry_of(c->a, &c->in[0].shape, &c->in[1].shape, c->a->kh, c->a->kw);
}

static int64_t blocks_of(const kn_geometry *g) { return (g->c + KN_LANES - 1) / KN_LANES; }

static kn_pieces images_of(const kn_geometry *g) { return kn_pieces_at_most(g->n, KN_DEPTHWISE_PARTIALS); }

static size_t partial_bytes(const kn_geometry *g, int64_t vecs_per_block)
{
    return kn_align(sizeof(kn_vec) * (size_t)(images_of(g).count * blocks_of(g) * vecs_per_block));
}

size_t kn_cpu_depthwise_dw_scratch(const kn_call *c)
{
    kn_geometry g = dw_of(c);
    return partial_bytes(&g, g.kh * g.kw) + (size_t)kn_cpu_threads(c) * plane_bytes(&g, false);
}

/* dw (+)= the sums of partial[piece][block][tap], in order. */
static void fold(const kn_geometry *g, const kn_vec *partial, const kn_tensor *dw, bool add)
{
    const int64_t n_taps = (int64_t)g->kh * g->kw, blocks = blocks_of(g), pieces = images_of(g).count;
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t i = 0; i < n_taps; i++) {
            int lanes = (int)KN_MIN(KN_LANES, g->c - b * KN_LANES);
            float *to = kn_fo(dw) + i / g->kw * dw->stride[0] + i % g->kw * dw->stride[1] + b * KN_LANES;
            kn_vec total = partial[b * n_taps + i];
            for (int64_t p = 1; p < pieces; p++)
                total += partial[(p * blocks + b) * n_taps + i];
            kn_vec_store_n(to, add ? total + kn_vec_load_n(to, lanes) : total, lanes);
        }
}

es_status kn_cpu_depthwise_dw(const kn_call *c, es_error *err)
{
    kn_geometry g = dw_of(c);
    ES_RETURN(check(&g, err));
    kn_pieces s = strips(&g, false), images = images_of(&g);
    const size_t bytes = plane_bytes(&g, false), before = partial_bytes(&g, g.kh * g.kw);
    const int64_t n_taps = (int64_t)g.kh * g.kw, blocks = blocks_of(&g);
    kn_vec *partial = c->scratch;
    KN_CPU_FOR(c, p, images.count)
    {
        kn_vec *plane = room_of(c, bytes, before), *sum = partial + p * blocks * n_taps;
        memset(sum, 0, sizeof(kn_vec) * (size_t)(blocks * n_taps));
        for (int64_t image = p * images.rows; image < KN_MIN((p + 1) * images.rows, g.n); image++)
            for (int64_t b = 0; b < blocks; b++) {
                kn_plane_source src = source_of(c, &c->in[0], coef_of(c), image, b * KN_LANES);
                for (int64_t from = 0; from < g.oh; from += s.rows) {
                    int64_t to = KN_MIN(from + s.rows, g.oh);
                    kn_window win = kn_window_forward(&g, from, to);
                    kn_plane_fill(plane, win, &src, NULL);
                    kn_plane_dw(&g, plane, win.cols,
                                kn_f(&c->in[1]) + (image * g.oh + from) * g.ow * g.c + b * KN_LANES, g.c, g.ow * g.c,
                                to - from, src.lanes, sum + b * n_taps);
                }
            }
    }
    fold(&g, partial, &c->out[0], c->accumulate & 1);
    return ES_OK;
}

/* --- dx and dw in one (fuse.h): whole images, so that x, its slopes and dy are there for both --- */

typedef struct joint {
    kn_geometry g;
    kn_window wx, wd;
    size_t x, slope, d, partial; /* bytes; the first three per thread */
    int64_t vecs;                /* per block and piece: taps, then the sum and the moment */
} joint;

static joint joint_of(const kn_attr *a, const kn_shape *x, const kn_shape *dy, int kh, int kw)
{
    joint j = {.g = kn_geometry_of(a, x, dy, kh, kw), .vecs = kh * kw + 2};
    j.wx = kn_window_forward(&j.g, 0, j.g.oh);
    j.wd = kn_window_backward(&j.g, 0, j.g.h);
    j.x = kn_window_bytes(j.wx);
    j.slope = kn_align(sizeof(kn_vec) * (size_t)(j.g.h * j.g.w));
    j.d = kn_window_bytes(j.wd);
    j.partial = partial_bytes(&j.g, j.vecs);
    return j;
}

bool kn_cpu_depthwise_joins(const kn_attr *a, const kn_shape *x, const kn_shape *dy, int kh, int kw)
{
    joint j = joint_of(a, x, dy, kh, kw);
    return kh * kw <= KN_TAPS_MAX && x->d[0] >= 4 && j.g.pad <= (KN_MIN(kh, kw) - 1) * j.g.dilation &&
           j.x + j.slope + j.d <= JOINT_BYTES;
}

static joint joint_call(const kn_call *c)
{
    const kn_shape *w = &c->in[KN_BACK_W].shape;
    return joint_of(c->a, &c->in[KN_BACK_X].shape, &c->in[KN_BACK_DY].shape, w->d[0], w->d[1]);
}

size_t kn_cpu_depthwise_back_scratch(const kn_call *c)
{
    joint j = joint_call(c);
    return j.partial + (size_t)kn_cpu_threads(c) * (j.x + j.slope + j.d);
}

/* One image, one block of channels. */
static void joint_block(const kn_call *c, const joint *j, int64_t image, int64_t b, kn_vec *x, kn_vec *slope, kn_vec *d,
                        kn_vec *sum)
{
    const kn_geometry *g = &j->g;
    const int64_t q = b * KN_LANES, n_taps = (int64_t)g->kh * g->kw;
    const kn_tensor *coef = &c->in[KN_BACK_COEF], *coef_e = &c->in[KN_BACK_COEF_E];
    kn_vec weight[KN_TAPS_MAX];
    kn_plane_source sx = source_of(c, &c->in[KN_BACK_X], coef, image, q),
                    sd = source_of(c, &c->in[KN_BACK_DY], coef_e, image, q);
    if (coef_e->p) {
        sd.act = (kn_act)c->a->axis;
        sd.e = kn_f(&c->in[KN_BACK_E]) + image * g->oh * g->ow * g->c + q;
        sd.k_x = kn_f(coef_e) + 2 * g->c + q;
        sd.k_1 = kn_f(coef_e) + 3 * g->c + q;
    }
    const bool sloped = c->out[KN_BACK_SUMS].p != NULL;
    kn_plane_fill(x, j->wx, &sx, sloped ? slope : NULL);
    kn_plane_fill(d, j->wd, &sd, NULL);
    kn_plane_weights(weight, &c->in[KN_BACK_W], q, sx.lanes);
    const float *first =
        (const float *)(const void *)(d - j->wd.line * j->wd.cols - j->wd.col); /* pixel (0, 0) of dy in its plane */
    kn_plane_dw(g, x, j->wx.cols, first, KN_LANES, j->wd.cols * KN_LANES, g->oh, KN_LANES, sum);
    kn_plane_target dx = {.step = g->c, .lanes = sx.lanes, .add = !sloped && (c->accumulate & 1)};
    if (sloped) {
        dx.slope_step = 1;
        dx.mean = kn_vec_load_n(kn_f(coef) + 2 * g->c + q, sx.lanes);
        dx.sum = sum + n_taps;
        dx.moment = sum + n_taps + 1;
    }
    for (int64_t h = 0; h < g->h; h++) {
        dx.y = kn_fo(&c->out[KN_BACK_DX]) + (image * g->h + h) * g->w * g->c + q;
        dx.x = sloped ? sx.x + h * g->w * g->c : NULL;
        dx.slope = sloped ? slope + h * g->w : NULL;
        kn_plane_dx_line(g, d, j->wd, weight, h, &dx);
    }
}

es_status kn_cpu_depthwise_back(const kn_call *c, es_error *err)
{
    (void)err;
    joint j = joint_call(c);
    const kn_geometry *g = &j.g;
    const int64_t blocks = blocks_of(g), n_taps = j.vecs - 2;
    kn_pieces images = images_of(g);
    kn_vec *partial = c->scratch;
    KN_CPU_FOR(c, p, images.count)
    {
        char *room = (char *)c->scratch + j.partial + (size_t)kn_cpu_self() * (j.x + j.slope + j.d);
        kn_vec *x = (kn_vec *)(void *)room, *slope = (kn_vec *)(void *)(room + j.x),
               *d = (kn_vec *)(void *)(room + j.x + j.slope);
        kn_vec *sum = partial + p * blocks * j.vecs;
        memset(sum, 0, sizeof(kn_vec) * (size_t)(blocks * j.vecs));
        for (int64_t image = p * images.rows; image < KN_MIN((p + 1) * images.rows, g->n); image++)
            for (int64_t b = 0; b < blocks; b++)
                joint_block(c, &j, image, b, x, slope, d, sum + b * j.vecs);
    }
    const kn_tensor *dw = &c->out[KN_BACK_DW];
    float *sums = kn_fo(&c->out[KN_BACK_SUMS]);
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t i = 0; i < j.vecs; i++) {
            int lanes = (int)KN_MIN(KN_LANES, g->c - b * KN_LANES);
            kn_vec total = partial[b * j.vecs + i];
            for (int64_t p = 1; p < images.count; p++)
                total += partial[(p * blocks + b) * j.vecs + i];
            if (i < n_taps) {
                float *to = kn_fo(dw) + i / g->kw * dw->stride[0] + i % g->kw * dw->stride[1] + b * KN_LANES;
                kn_vec_store_n(to, c->accumulate >> KN_BACK_DW & 1 ? total + kn_vec_load_n(to, lanes) : total, lanes);
            } else if (sums) {
                kn_vec_store_n(sums + (i - n_taps) * g->c + b * KN_LANES, total, lanes);
            }
        }
    return ES_OK;
}
