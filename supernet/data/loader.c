/* Where the data set lives on the device (resident.h) batches are made there and there is no thread. Else one host buffer suffices: the batch asked for is
 * uploaded before the thread starts on the next one. */
#include "supernet/data/resident.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/rng.h"

/* The epoch number that keys the calibration order: no training epoch has it. */
static const uint64_t CALIBRATION_EPOCH = UINT64_MAX;

typedef struct maker { /* what one thread at a time may touch */
    uint32_t *order;   /* permutation of the training split for `epoch` */
    uint64_t epoch;
    int64_t offset; /* of the epoch's first window, when samples are windows */
    bool ordered;
    uint64_t step; /* that the buffer holds */
    bool made;
    float *images;
    int32_t *labels;
} maker;

struct sn_loader {
    const sn_data *d;
    sn_augment_config augment;
    uint64_t seed;
    int batch, from, share; /* of every batch, samples from .. from + share - 1 are made */
    size_t sample;          /* floats or token ids, 4 bytes each */
    size_t labels_each;     /* of a sample: 1, or one for each token */
    kn_device *dev;
    sn_resident *resident; /* NULL: batches are made on the host */
    void *images, *labels; /* device; `capacity` samples */
    int capacity;
    float *host; /* for evaluation; `capacity` samples */
    int32_t *host_labels;
    uint32_t *calibration;
    maker next;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool started, wanted, stop; /* wanted: the thread owns `next` and is to make `want_step` */
    uint64_t want_step;
};

static void permutation(const sn_loader *l, uint64_t epoch, uint32_t *order)
{
    int64_t n = l->d->count[SN_TRAIN_SPLIT];
    memcpy(order, l->d->index[SN_TRAIN_SPLIT], (size_t)n * sizeof *order);
    es_rng r = es_rng_make(l->seed, ES_USE_SHUFFLE, epoch);
    es_rng_shuffle(&r, order, (size_t)n);
}

/* One sample of a split into a batch: its pixels and label, or its window's tokens and those that follow. */
static void put_sample(const sn_loader *l, sn_split split, int64_t row, int64_t offset, const sn_distort *g, float *x,
                       int32_t *labels)
{
    const sn_images *im = sn_data_images(l->d, split);
    if (l->d->tokens) {
        sn_tokens_window(&l->d->text[split], l->d->tokens, offset + row * l->d->tokens, (int32_t *)(void *)x, labels);
        return;
    }
    sn_sample_make(l->d, im, row, l->augment.normalise, g, x);
    *labels = im->labels[row];
}

static void make_step(const sn_loader *l, maker *m, uint64_t step)
{
    uint64_t per_epoch = (uint64_t)sn_loader_steps_per_epoch(l), epoch = step / per_epoch;
    const sn_images *im = &l->d->train;
    if (!m->ordered || m->epoch != epoch) {
        permutation(l, epoch, m->order);
        if (l->d->tokens)
            m->offset = sn_tokens_offset(&l->d->text[SN_TRAIN_SPLIT], l->d->tokens, l->seed, epoch);
    }
    m->ordered = true;
    m->epoch = epoch;
    const uint32_t *rows = m->order + (step % per_epoch) * (uint64_t)l->batch + (uint64_t)l->from;
    for (int i = 0; i < l->share; i++) {
        sn_distort g = sn_distort_draw(&l->augment, im->h, im->w, l->seed, epoch, rows[i]);
        put_sample(l, SN_TRAIN_SPLIT, rows[i], m->offset, &g, m->images + (size_t)i * l->sample,
                   m->labels + (size_t)i * l->labels_each);
    }
    m->step = step;
    m->made = true;
}

static void *loader_thread(void *arg)
{
    sn_loader *l = arg;
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->wanted && !l->stop)
            pthread_cond_wait(&l->changed, &l->lock);
        if (l->stop)
            break;
        uint64_t step = l->want_step;
        pthread_mutex_unlock(&l->lock);
        make_step(l, &l->next, step);
        pthread_mutex_lock(&l->lock);
        l->wanted = false;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static es_status reserve(sn_loader *l, int samples, es_error *err)
{
    if (samples <= l->capacity)
        return ES_OK;
    kn_device_free(l->dev, l->images);
    kn_device_free(l->dev, l->labels);
    l->images = l->labels = NULL;
    l->capacity = 0;
    ES_RETURN(kn_device_alloc(l->dev, (size_t)samples * l->sample * sizeof(float), &l->images, err));
    ES_RETURN(kn_device_alloc(l->dev, (size_t)samples * l->labels_each * sizeof(int32_t), &l->labels, err));
    if (!l->resident) {
        l->host = es_xrealloc(l->host, (size_t)samples * l->sample * sizeof(float));
        l->host_labels = es_xrealloc(l->host_labels, (size_t)samples * l->labels_each * sizeof(int32_t));
    }
    l->capacity = samples;
    return ES_OK;
}

es_status sn_loader_new(const sn_data *d, const sn_augment_config *a, uint64_t seed, int batch, kn_device *dev,
                        sn_loader **out, es_error *err)
{
    int64_t n = d->count[SN_TRAIN_SPLIT];
    if (batch < 1 || batch > n)
        return es_fail(err, ES_INVALID, "supernet.batch",
                       "%d: allowed are 1 to %" PRId64 ", the number of training samples", batch, n);
    int h, w, c;
    sn_data_shape(d, &h, &w, &c);
    if (a->pad_crop < 0 || a->cutout < 0 || a->pad_crop > h || a->pad_crop > w)
        return es_fail(err, ES_INVALID, "task.augment", "pad_crop %d and cutout %d: allowed are 0 to the image's size",
                       a->pad_crop, a->cutout);
    sn_loader *l = es_xcalloc(1, sizeof *l);
    es_status s;
    l->d = d;
    l->augment = *a;
    l->seed = seed;
    l->batch = l->share = batch;
    l->sample = (size_t)h * (size_t)w * (size_t)c;
    l->labels_each = d->tokens ? (size_t)d->tokens : 1;
    l->dev = dev;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    l->next.order = es_xcalloc((size_t)n, sizeof *l->next.order);
    l->calibration = es_xcalloc((size_t)n, sizeof *l->calibration);
    permutation(l, CALIBRATION_EPOCH, l->calibration);
    ES_GOTO(sn_resident_new(d, dev, &l->resident, err));
    ES_GOTO(reserve(l, batch, err));
    if (l->resident) {
        ES_GOTO(sn_resident_order(l->resident, SN_ORDER_CALIBRATION, l->calibration, n, err));
        *out = l;
        return ES_OK;
    }
    l->next.images = es_xcalloc((size_t)batch * l->sample, sizeof(float));
    l->next.labels = es_xcalloc((size_t)batch * l->labels_each, sizeof(int32_t));
    if (pthread_create(&l->thread, NULL, loader_thread, l) != 0)
        ES_GOTO(es_fail_errno(err, "loader", "cannot start its thread"));
    l->started = true;
    *out = l;
    return ES_OK;
fail:
    sn_loader_destroy(&l);
    return s;
}

void sn_loader_destroy(sn_loader **lp)
{
    sn_loader *l = *lp;
    if (!l)
        return;
    if (l->started) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_broadcast(&l->changed);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->changed);
    sn_resident_destroy(&l->resident);
    kn_device_free(l->dev, l->images);
    kn_device_free(l->dev, l->labels);
    free(l->host);
    free(l->host_labels);
    free(l->next.order);
    free(l->next.images);
    free(l->next.labels);
    free(l->calibration);
    free(l);
    *lp = NULL;
}

es_status sn_loader_share(sn_loader *l, int rank, int size, es_error *err)
{
    if (size < 1 || rank < 0 || rank >= size || l->batch % size != 0)
        return es_fail(err, ES_INVALID, "supernet.batch", "%d cannot be shared by %d ranks: use a multiple of it",
                       l->batch, size);
    pthread_mutex_lock(&l->lock);
    while (l->wanted)
        pthread_cond_wait(&l->changed, &l->lock);
    l->share = l->batch / size;
    l->from = rank * l->share;
    l->next.made = false;
    pthread_mutex_unlock(&l->lock);
    return ES_OK;
}

int64_t sn_loader_steps_per_epoch(const sn_loader *l) { return l->d->count[SN_TRAIN_SPLIT] / l->batch; }

static es_status upload(sn_loader *l, const float *images, const int32_t *labels, int n, sn_batch *out, es_error *err)
{
    ES_RETURN(kn_device_upload(l->dev, l->images, images, (size_t)n * l->sample * sizeof(float), err));
    ES_RETURN(kn_device_upload(l->dev, l->labels, labels, (size_t)n * l->labels_each * sizeof(int32_t), err));
    *out = (sn_batch){.images = l->images, .labels = l->labels, .n = n};
    return ES_OK;
}

/* The batch of a step, made on the device; the order of an epoch goes there once. */
static es_status resident_step(sn_loader *l, uint64_t step, sn_batch *out, es_error *err)
{
    uint64_t per_epoch = (uint64_t)sn_loader_steps_per_epoch(l), epoch = step / per_epoch;
    maker *m = &l->next;
    if (!m->ordered || m->epoch != epoch) {
        permutation(l, epoch, m->order);
        m->ordered = false;
        ES_RETURN(sn_resident_order(l->resident, SN_ORDER_EPOCH, m->order, l->d->count[SN_TRAIN_SPLIT], err));
        m->ordered = true;
        m->epoch = epoch;
    }
    int64_t first = (int64_t)(step % per_epoch) * l->batch + l->from;
    *out = (sn_batch){.images = l->images, .labels = l->labels, .n = l->share};
    sn_resident_batch b = {.order = SN_ORDER_EPOCH,
                           .first = first,
                           .n = l->share,
                           .augment = &l->augment,
                           .distort = true,
                           .seed = l->seed,
                           .epoch = epoch};
    return sn_resident_make(l->resident, &b, l->images, l->labels, err);
}

size_t sn_loader_device_bytes(const sn_loader *l)
{
    return (size_t)l->capacity * (l->sample * sizeof(float) + l->labels_each * sizeof(int32_t)) +
           sn_resident_bytes(l->resident);
}

es_status sn_loader_train(sn_loader *l, uint64_t step, sn_batch *out, es_error *err)
{
    if (l->resident)
        return resident_step(l, step, out, err);
    pthread_mutex_lock(&l->lock);
    while (l->wanted)
        pthread_cond_wait(&l->changed, &l->lock);
    pthread_mutex_unlock(&l->lock);
    if (!l->next.made || l->next.step != step) /* the first step, or a jump: made here */
        make_step(l, &l->next, step);
    ES_RETURN(upload(l, l->next.images, l->next.labels, l->share, out, err));
    pthread_mutex_lock(&l->lock);
    l->wanted = true;
    l->want_step = step + 1;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return ES_OK;
}

/* Samples of a split in an order that does not change, as they are. */
typedef struct fixed_order {
    sn_split split;
    const uint32_t *rows; /* as many as the split has samples */
    int order;            /* the same list on the device */
} fixed_order;

static es_status plain(sn_loader *l, const fixed_order *o, int64_t first, int count, sn_batch *out, es_error *err)
{
    ES_ASSERT(first >= 0 && count >= 1 && first + count <= l->d->count[o->split]);
    ES_RETURN(reserve(l, count, err));
    if (l->resident) {
        *out = (sn_batch){.images = l->images, .labels = l->labels, .n = count};
        sn_resident_batch b = {.order = o->order, .first = first, .n = count, .augment = &l->augment};
        return sn_resident_make(l->resident, &b, l->images, l->labels, err);
    }
    for (int i = 0; i < count; i++)
        put_sample(l, o->split, o->rows[first + i], 0, NULL, l->host + (size_t)i * l->sample,
                   l->host_labels + (size_t)i * l->labels_each);
    return upload(l, l->host, l->host_labels, count, out, err);
}

es_status sn_loader_eval(sn_loader *l, sn_split s, int64_t first, int count, sn_batch *out, es_error *err)
{
    return plain(l, &(fixed_order){s, l->d->index[s], (int)s}, first, count, out, err);
}

es_status sn_loader_calibration(sn_loader *l, int64_t first, int count, sn_batch *out, es_error *err)
{
    return plain(l, &(fixed_order){SN_TRAIN_SPLIT, l->calibration, SN_ORDER_CALIBRATION}, first, count, out, err);
}
