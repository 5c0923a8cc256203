#include "supernet/train/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "supernet/train/links.h"
#include "supernet/train/plans.h"
#include "supernet/train/stream.h"

/* The methods, by sn_method. */
static const sn_method_ops *const methods[] = {
#define X(NAME, name, spelling, repeating) [SN_METHOD_##NAME] = &sn_method_##name,
    SN_METHODS(X)
#undef X
};

static const float ALPHA_MINUS = -1, ALPHA_PLUS = 1, ALPHA_CLIP = 5; /* AlphaNet's own */
static const int64_t PROGRESS_NS = 1000000000;
enum { WARM_STEPS = 2 }; /* the second records what repeats */

uint64_t sn_trainer_steps_of(const sn_trainer *t, double epochs)
{
    double steps = round(epochs * (double)sn_loader_steps_per_epoch(t->loader));
    return steps >= 1 ? (uint64_t)steps : 1;
}

static void set_schedule(sn_trainer *t, uint64_t steps, double warmup_epochs)
{
    t->steps = steps;
    t->schedule = t->file->supernet.schedule;
    t->schedule.total = steps;
    t->schedule.warmup = warmup_epochs > 0 ? sn_trainer_steps_of(t, warmup_epochs) : 0;
}

static es_status open_data(sn_trainer *t, es_error *err)
{
    const sn_search_file *f = t->file;
    sn_expect e = {.classes = sn_space_classes(f->space),
                   .tokens = sn_space_tokens(f->space) ? sn_space_positions(f->space) : 0};
    sn_space_input(f->space, &e.h, &e.w, &e.c);
    ES_RETURN(sn_data_open(&f->data, f->seed, &e, &t->data, err));
    return sn_loader_new(t->data, &f->augment, t->seed, f->supernet.batch, t->dev, &t->loader, err);
}

static es_status open_memory(sn_trainer *t, es_error *err)
{
    const kn_params *sets[KN_SETS] = {[KN_SET_WEIGHTS] = sn_net_params(t->net), [KN_SET_STATS] = sn_net_stats(t->net)};
    size_t scores = (size_t)sn_space_classes(t->file->space) * (size_t)sn_space_positions(t->file->space);
    t->graph = kn_graph_new(sets);
    ES_RETURN(kn_weights_new(t->dev, sets[KN_SET_WEIGHTS], KN_WITH_GRAD, &t->weights, err));
    ES_RETURN(kn_weights_new(t->dev, sets[KN_SET_STATS], 0, &t->stats, err));
    ES_RETURN(kn_weights_new(t->dev, sets[KN_SET_STATS], 0, &t->eval_stats, err));
    ES_RETURN(kn_workspace_new(t->dev, &t->ws, err));
    ES_RETURN(kn_device_alloc(t->dev, (size_t)t->file->supernet.batch * scores * sizeof(float), &t->teacher, err));
    ES_RETURN(kn_device_alloc(t->dev, (SN_LOSS_RING + 1) * sizeof(float), &t->losses, err));
    const sr_space *choices = sn_space_choices(t->file->space);
    t->largest = sr_arch_new(choices);
    t->smallest = sr_arch_new(choices);
    t->sampled = sr_arch_new(choices);
    sr_arch_largest(choices, t->largest);
    sr_arch_smallest(choices, t->smallest);
    return ES_OK;
}

static bool wanted(void *ctx, int set, kn_param id) { return set == KN_SET_WEIGHTS && sn_modules_trains(ctx, set, id); }
static bool trainable(void *ctx, kn_param id) { return sn_modules_trains(ctx, KN_SET_WEIGHTS, id); }

es_status sn_trainer_optim(sn_trainer *t, es_error *err)
{
    kn_optim_destroy(&t->optim);
    ES_RETURN(kn_optim_new(&t->file->supernet.optimizer, t->weights, &t->optim, err));
    kn_optim_trainable(t->optim, trainable, t);
    return ES_OK;
}

es_status sn_trainer_new(const sn_search_file *f, kn_device *dev, sn_trainer **out, es_error *err)
{
    if (f->task == SN_TASK_TABLE)
        return es_fail(err, ES_INVALID, "task.kind", "a table is looked up, not trained: use sn_table");
    sn_trainer *t = es_xcalloc(1, sizeof *t);
    es_status s;
    t->file = f;
    t->dev = dev;
    t->method = methods[f->supernet.method];
    t->seed = f->seed;
    t->part = -1;
    t->keep_bytes = SIZE_MAX;
    t->plans = sn_plans_new();
    t->link_plans = sn_link_plans_new();
    ES_GOTO(sn_net_new(f->space, &t->net, err));
    ES_GOTO(open_data(t, err));
    ES_GOTO(open_memory(t, err));
    ES_GOTO(sn_trainer_optim(t, err));
    ES_GOTO(kn_weights_init(t->weights, t->seed, err));
    ES_GOTO(kn_weights_init(t->stats, t->seed, err));
    ES_GOTO(kn_weights_zero_grads(t->weights, err));
    /* A modules search has phases to train and no supernet as a whole: sn_trainer_phase sets their steps. */
    set_schedule(t, f->supernet.method == SN_METHOD_MODULES ? 0 : sn_trainer_steps_of(t, f->supernet.epochs),
                 f->supernet.warmup_epochs);
    *out = t;
    return ES_OK;
fail:
    sn_trainer_destroy(&t);
    return s;
}

void sn_trainer_destroy(sn_trainer **tp)
{
    sn_trainer *t = *tp;
    if (!t)
        return;
    sn_gang_destroy(&t->gang);
    kn_plan_destroy(&t->plan);
    sn_plans_destroy(&t->plans);
    sn_link_plans_destroy(&t->link_plans);
    kn_graph_destroy(&t->graph);
    kn_workspace_destroy(&t->ws);
    kn_optim_destroy(&t->optim);
    kn_weights_destroy(&t->weights);
    kn_weights_destroy(&t->stats);
    kn_weights_destroy(&t->eval_stats);
    kn_weights_destroy(&t->average);
    sn_loader_destroy(&t->loader);
    sn_data_close(&t->data);
    sn_net_destroy(&t->net);
    kn_device_free(t->dev, t->teacher);
    kn_device_free(t->dev, t->losses);
    kn_device_free(t->dev, t->scores);
    sn_stream_destroy(&t->stream, t->dev);
    free(t->largest);
    free(t->smallest);
    free(t->sampled);
    free(t->part_of);
    free(t->unit_flags);
    free(t);
    *tp = NULL;
}

uint64_t sn_train_steps(const sn_trainer *t) { return t->steps; }
uint64_t sn_trainer_step(const sn_trainer *t) { return t->step; }
size_t sn_trainer_memory_bytes(const sn_trainer *t)
{
    size_t weights = (size_t)kn_params_elements(sn_net_params(t->net)) * sizeof(float);
    size_t stats = (size_t)kn_params_elements(sn_net_stats(t->net)) * sizeof(float);
    return weights * (2 + (size_t)kn_optim_arrays(t->optim) + (t->average ? 1 : 0)) + 2 * stats +
           sn_data_bytes(t->data) + sn_loader_device_bytes(t->loader) + sn_stream_bytes(t->stream) + t->workspace_bytes;
}

/* Processors compute in fp32; on a GPU activations and products are bf16, weights and statistics stay fp32. */
kn_precision sn_trainer_precision(const sn_trainer *t)
{
    return kn_device_backend(t->dev) == KN_BACKEND_CUDA && !t->exact ? KN_PRECISION_BF16 : KN_PRECISION_F32;
}

void sn_trainer_exact(sn_trainer *t) { t->exact = true; }

es_status sn_trainer_plan(sn_trainer *t, es_error *err) { return sn_trainer_plan_to(t, &t->plan, false, err); }

es_status sn_trainer_plan_to(sn_trainer *t, kn_plan **plan, bool repeats, es_error *err)
{
    ES_RETURN(kn_graph_status(t->graph, err));
    const kn_plan_options options = {.precision = sn_trainer_precision(t), .repeats = repeats};
    ES_RETURN(kn_plan_make(t->dev, t->graph, &options, plan, err));
    return sn_trainer_room(t, *plan, err);
}

es_status sn_trainer_room(sn_trainer *t, const kn_plan *plan, es_error *err)
{
    size_t need = kn_plan_workspace_bytes(plan);
    if (need <= t->workspace_bytes)
        return ES_OK;
    size_t free_bytes = 0, total_bytes = 0;
    ES_RETURN(kn_device_memory(t->dev, &free_bytes, &total_bytes, err));
    if (need - t->workspace_bytes > free_bytes)
        return es_fail(
            err, ES_NO_MEMORY, kn_device_name(t->dev),
            "a step with %d samples needs %zu MiB of workspace, %zu MiB are free: choose a smaller supernet.batch",
            sn_trainer_batch(t), need >> 20, free_bytes >> 20);
    t->workspace_bytes = 0; /* what there was is gone even when the larger one cannot be had */
    ES_RETURN(kn_workspace_reserve(t->ws, need, err));
    t->workspace_bytes = need;
    return ES_OK;
}

static kn_val pass_loss(sn_trainer *t, const sn_pass *p, kn_val logits)
{
    kn_graph *g = t->graph;
    kn_shape shape = kn_shape_of(g, logits), labels = KN_SHAPE(shape.d[0]);
    if (p->loss == SN_LOSS_LABELS)
        return kn_cross_entropy(g, logits, kn_input(g, SN_IN_LABELS, labels, KN_I32), t->file->supernet.smoothing);
    kn_val teacher = kn_input(g, SN_IN_TEACHER, shape, KN_F32);
    if (p->loss == SN_LOSS_KL)
        return kn_soft_cross_entropy(g, logits, kn_softmax(g, teacher));
    return kn_alpha_divergence(g, logits, teacher, ALPHA_MINUS, ALPHA_PLUS, ALPHA_CLIP);
}

es_rng sn_trainer_draw(const sn_trainer *t, uint64_t step)
{
    return es_rng_make(t->gang ? sn_gang_subnet_seed(t->gang, t->seed) : t->seed, ES_USE_SAMPLE_SUBNET, step);
}

int sn_trainer_batch(const sn_trainer *t)
{
    return t->file->supernet.batch / (t->gang ? kn_collective_size(sn_gang_collective(t->gang)) : 1);
}

static es_status plan_pass(sn_trainer *t, const sn_pass *p, kn_plan **plan, es_error *err)
{
    sn_lower_options o = {
        .batch = t->batch.n, .mode = SN_TRAIN, .regularise = p->regularise, .unit_flags = t->unit_flags};
    sn_lowered net;
    kn_graph_reset(t->graph);
    ES_RETURN(sn_net_lower(t->net, p->arch, &o, t->graph, &net, err));
    kn_val loss = kn_reduce_mean(t->graph, pass_loss(t, p, net.logits), KN_AXES_ALL);
    ES_RETURN(kn_graph_status(t->graph, err));
    ES_RETURN(kn_grad_params(t->graph, p->scale == 1 ? loss : kn_scale(t->graph, loss, p->scale), wanted, t, err));
    if (p->reports)
        kn_output(t->graph, SN_OUT_LOSS, loss);
    if (p->teaches)
        kn_output(t->graph, SN_OUT_LOGITS, net.logits);
    return sn_trainer_plan_to(t, plan, p->repeats, err);
}

static es_status plan_of(sn_trainer *t, const sn_pass *p, kn_plan **plan, es_error *err)
{
    if (!p->repeats) {
        ES_RETURN(plan_pass(t, p, &t->plan, err));
        *plan = t->plan;
        return ES_OK;
    }
    sn_kept_plan *k = sn_plans_at(t->plans, p, t->batch.n, sn_trainer_precision(t));
    if (!k->made) {
        ES_RETURN(plan_pass(t, p, &k->plan, err));
        kn_plan_trim(k->plan);
    }
    k->made = true;
    ES_RETURN(sn_trainer_room(t, k->plan, err));
    *plan = k->plan;
    return ES_OK;
}

static bool told_to_stop(const sn_hooks *h) { return h && h->stop && h->stop(h->ctx); }

es_status sn_trainer_pass(sn_trainer *t, const sn_pass *p, es_error *err)
{
    kn_plan *plan = NULL;
    if (t->gang && sn_gang_rehearses(t->gang))
        return sn_gang_note(t, p->arch, err);
    if (t->warming && told_to_stop(t->hooks))
        return es_fail(err, ES_CANCELLED, NULL, "told to stop before the first step");
    ES_RETURN(plan_of(t, p, &plan, err));
    float *ring = t->losses,
          *loss = ring + SN_LOSS_RING; /* at one address in every step: a plan that repeats wants that */
    kn_binding b = {
        .in = {[SN_IN_IMAGES] = t->batch.images, [SN_IN_LABELS] = t->batch.labels, [SN_IN_TEACHER] = t->teacher},
        .out = {[SN_OUT_LOSS] = loss, [SN_OUT_LOGITS] = t->teacher},
        .weights = {t->weights, t->stats},
        .seed = t->gang ? sn_gang_noise_seed(t->gang, t->seed) : t->seed,
        .step = t->step};
    if (t->gang)
        ES_RETURN(sn_gang_pass(t, plan, &b, err));
    ES_RETURN(kn_run(plan, t->ws, &b, err));
    if (!p->reports || t->warming)
        return ES_OK;
    return kn_device_copy(t->dev, ring + t->pending++, loss, sizeof *loss, err);
}

/* Adds what the ring holds to the sums, in the order of the steps. */
static es_status take_losses(sn_trainer *t, es_error *err)
{
    float host[SN_LOSS_RING];
    int n = t->pending;
    if (n == 0)
        return ES_OK;
    ES_RETURN(kn_device_sync(t->dev, err));
    ES_RETURN(kn_device_download(t->dev, host, t->losses, (size_t)n * sizeof(float), err));
    t->pending = 0;
    for (int i = 0; i < n; i++) {
        if (!isfinite(host[i])) {
            uint64_t step = t->step - (uint64_t)(n - i);
            return es_fail(
                err, ES_INVALID, "supernet",
                "training diverged: the loss of step %" PRIu64 " is %s (learning rate %g): lower supernet.optimizer.lr",
                step, isnan(host[i]) ? "not a number" : "infinite", (double)kn_schedule_at(&t->schedule, step));
        }
        t->loss_sum += (double)host[i];
    }
    t->loss_count += (uint64_t)n;
    return ES_OK;
}

/* All but the update: gradients, of all ranks. */
static es_status take_passes(sn_trainer *t, uint64_t step, es_error *err)
{
    if (t->gang)
        ES_RETURN(sn_gang_begin(t, step, err));
    ES_RETURN(t->method->step(t, step, err));
    return t->gang ? sn_gang_end(t, err) : ES_OK;
}

static es_status one_step(sn_trainer *t, es_error *err)
{
    ES_RETURN(sn_loader_train(t->loader, t->step, &t->batch, err));
    ES_RETURN(take_passes(t, t->step, err));
    ES_RETURN(kn_optim_update(t->optim, kn_schedule_at(&t->schedule, t->step), err));
    t->step++;
    return ES_OK;
}

/* Plans the dearest pass before the first step, so that a job that cannot fit is refused before it has worked. */
static es_status reserve(sn_trainer *t, es_error *err)
{
    sn_lower_options o = {
        .batch = sn_trainer_batch(t), .mode = SN_TRAIN, .regularise = true, .unit_flags = t->unit_flags};
    sn_lowered net;
    sn_stream_destroy(&t->stream, t->dev); /* what evaluations keep; a step may need the memory */
    kn_graph_reset(t->graph);
    ES_RETURN(sn_net_lower(t->net, t->largest, &o, t->graph, &net, err));
    kn_val labels = kn_input(t->graph, SN_IN_LABELS, KN_SHAPE(kn_shape_of(t->graph, net.logits).d[0]), KN_I32);
    kn_val loss = kn_reduce_mean(t->graph, kn_cross_entropy(t->graph, net.logits, labels, 0), KN_AXES_ALL);
    ES_RETURN(kn_graph_status(t->graph, err));
    ES_RETURN(kn_grad_params(t->graph, loss, wanted, t, err));
    kn_output(t->graph, SN_OUT_LOSS, loss);
    return sn_trainer_plan(t, err);
}

/* On a GPU the driver loads the code of a kernel when it is launched for the first time, products are looked up by shape, and plans that repeat are recorded on their second run:
 * all of that happens here, in the first steps without their update, instead of in them. Nothing is left of it: gradients are zero again, losses are not taken.
 * *stop: told to stop meanwhile; the rest is rehearsed another time. */
static es_status warm_up(sn_trainer *t, const sn_hooks *h, bool *stop, es_error *err)
{
    es_status s = ES_OK;
    if (t->warm || kn_device_backend(t->dev) != KN_BACKEND_CUDA)
        return ES_OK;
    ES_RETURN(sn_loader_train(t->loader, t->step, &t->batch, err));
    t->warming = true;
    t->hooks = h;
    for (uint64_t i = 0; i < WARM_STEPS && s == ES_OK; i++)
        s = take_passes(t, t->step + i, err);
    t->warming = false;
    t->hooks = NULL;
    *stop = s == ES_CANCELLED;
    if (!*stop)
        ES_RETURN(s);
    ES_RETURN(kn_weights_zero_grads(t->weights, err));
    ES_RETURN(kn_device_sync(t->dev, err));
    t->warm = !*stop;
    return ES_OK;
}

/* Asked before a step (*stop: told so already): alone, whether it is not to be taken; in a gang that is agreed on after it (sn_gang_agree), so that all ranks
 * stop at one boundary. */
static es_status ask_stop(sn_trainer *t, const sn_hooks *h, bool *stop, es_error *err)
{
    *stop = *stop || told_to_stop(h);
    if (!t->gang)
        return ES_OK;
    ES_RETURN(sn_gang_propose(t, *stop, err));
    *stop = false;
    return ES_OK;
}

/* told: to stop, before the first step. */
static es_status run_steps(sn_trainer *t, uint64_t until, const sn_hooks *h, bool told, es_error *err)
{
    es_clock *clock = es_clock_system();
    int64_t spoke = es_clock_mono_ns(clock);
    uint64_t told_step = t->step, told_count = 0;
    double told_sum = 0;
    bool stop = false;
    while (t->step < until && !stop) {
        stop = told;
        ES_RETURN(ask_stop(t, h, &stop, err));
        if (stop)
            break;
        ES_RETURN(one_step(t, err));
        if (t->gang)
            ES_RETURN(sn_gang_agree(t, &stop, err));
        int64_t now = es_clock_mono_ns(clock);
        bool tell = h && h->progress && now - spoke >= PROGRESS_NS;
        if (t->pending == SN_LOSS_RING || tell)
            ES_RETURN(take_losses(t, err));
        if (tell && t->loss_count > told_count) {
            double loss = (t->loss_sum - told_sum) / (double)(t->loss_count - told_count);
            double rate =
                (double)(t->step - told_step) * (double)t->file->supernet.batch / ((double)(now - spoke) * 1e-9);
            h->progress(h->ctx, t->step, t->steps, loss, rate);
            spoke = now;
            told_step = t->step;
            told_sum = t->loss_sum;
            told_count = t->loss_count;
        }
    }
    ES_RETURN(take_losses(t, err));
    return t->gang ? sn_gang_over(t, err) : ES_OK;
}

es_status sn_trainer_run(sn_trainer *t, uint64_t until_step, const sn_hooks *h, sn_report *out, es_error *err)
{
    es_clock *clock = es_clock_system();
    int64_t start = es_clock_mono_ns(clock);
    uint64_t first = t->step, until = until_step < t->steps ? until_step : t->steps;
    es_status s = ES_OK;
    bool stop = false;
    memset(out, 0, sizeof *out);
    t->loss_sum = 0;
    t->loss_count = 0;
    if (t->step < until)
        s = reserve(t, err);
    if (s == ES_OK && t->step < until)
        s = warm_up(t, h, &stop, err);
    out->prepare_s = (double)(es_clock_mono_ns(clock) - start) * 1e-9;
    if (s == ES_OK)
        s = run_steps(t, until, h, stop, err);
    if (s != ES_OK)
        return t->gang ? sn_gang_failed(t->gang, s, err) : s;
    out->step = t->step;
    out->seconds = (double)(es_clock_mono_ns(clock) - start) * 1e-9;
    out->mean_loss = t->loss_count ? t->loss_sum / (double)t->loss_count : 0;
    out->images_per_s =
        out->seconds > 0 ? (double)(t->step - first) * (double)t->file->supernet.batch / out->seconds : 0;
    return ES_OK;
}

es_status sn_trainer_phase(sn_trainer *t, sn_phase phase, int part, const sn_version *meta, es_error *err)
{
    static const char *const labels[SN_PHASES] = {"", "meta", "part", "finetune", "end-to-end"};
    const sn_search_file *f = t->file;
    char label[32] = "";
    sn_modules_plan plan;
    if (f->supernet.method != SN_METHOD_MODULES)
        return phase == SN_PHASE_SUPERNET
                   ? ES_OK
                   : es_fail(err, ES_INVALID, "supernet.method", "only modules are trained in phases");
    ES_RETURN(sn_modules_describe(t, &plan, err));
    if (phase >= SN_PHASES || (phase == SN_PHASE_PART && (part < 1 || part > plan.parts)))
        return es_fail(err, ES_INVALID, "part", "phase %d, part %d: parts are 1 to %d", (int)phase, part, plan.parts);
    if (phase == SN_PHASE_PART)
        snprintf(label, sizeof label, "part %d", part);
    else
        snprintf(label, sizeof label, "%s", labels[phase]);
    int units = sn_net_units(t->net);
    t->phase = phase;
    t->part = phase == SN_PHASE_PART ? part - 1 : -1;
    t->seed = label[0] ? es_seed_derive(f->seed, label) : f->seed;
    free(t->part_of);
    free(t->unit_flags);
    t->part_of = es_xcalloc((size_t)units, sizeof *t->part_of);
    t->unit_flags = NULL;
    ES_RETURN(sn_modules_cut(t, t->part_of, err));
    if (phase == SN_PHASE_META || phase == SN_PHASE_PART) {
        t->unit_flags = es_xcalloc((size_t)units, 1);
        ES_RETURN(sn_net_part_flags(t->net, t->largest, t->part_of, t->part, t->unit_flags, err));
    }
    sn_plans_forget(t->plans);
    t->warm = false;
    sn_loader_destroy(&t->loader);
    ES_RETURN(sn_loader_new(t->data, &f->augment, t->seed, f->supernet.batch, t->dev, &t->loader, err));
    ES_RETURN(sn_trainer_join(t, NULL, err));
    ES_RETURN(sn_trainer_optim(t, err));
    ES_RETURN(kn_weights_zero_grads(t->weights, err));
    set_schedule(t, plan.steps[phase], phase == SN_PHASE_FINETUNE ? 0 : f->supernet.warmup_epochs);
    t->step = 0;
    return sn_modules_start(t, meta, err);
}
