#include "tests/supernet/lab.h"

#include "base/arena.h"
#include "tests/check_main.h"
#include "tests/supernet/make.h"
#include "tests/supernet/spaces.h"

static const char *const SPACE =
    "input: 12x12x1\n"
    "stem: {width: [4, 8], kernel: 3, stride: 1}\n"
    "stages:\n"
    "  - {block: mbconv, width: [8, 12], depth: [1, 2, 3], kernel: [3, 5], expand: [2, 3], stride: 2}\n"
    "  - {block: mbconv, width: [12, 16], depth: [1, 2, 3], kernel: [3, 5], expand: [2, 3], stride: 2}\n"
    "head: {width: [16, 24], classes: 4}\n";

lab *lab_new(const char *device, sn_method method)
{
    lab *l = es_xcalloc(1, sizeof *l);
    es_error err = {0};
    const char *dir = es_test_dir();
    sn_search_file *f = &l->file;
    ck_assert_ok_err(kn_device_open(device, &l->dev, &err), &err);
    f->space = space_parse(SPACE);
    f->seed = 7;
    f->text = es_xstrdup("the lab's search");
    f->task = SN_TASK_IMAGES;
    f->data = (sn_data_config){.format = SN_DATA_IDX, .validation = 128};
    snprintf(f->data.train, sizeof f->data.train, "%s/train", dir);
    snprintf(f->data.test, sizeof f->data.test, "%s/test", dir);
    make_bars(f->data.train, 640, 12, 4, 1);
    make_bars(f->data.test, 150, 12, 4, 2);
    f->augment = (sn_augment_config){.pad_crop = 1, .normalise = true};
    f->supernet =
        (sn_supernet_config){.method = method,
                             .random_subnets = 1,
                             .distill = SN_DISTILL_ALPHA,
                             .epochs = 4,
                             .batch = 32,
                             .optimizer = {.kind = KN_SGD, .momentum = 0.9f, .nesterov = true, .decay = 1e-4f},
                             .schedule = {.kind = KN_COSINE, .lr = 0.1f},
                             .warmup_epochs = 0.5,
                             .calibration = 200,
                             .modules = {.parts = 2, .epochs_meta = 3, .epochs_part = 2, .epochs_finetune = 1}};
    return l;
}

void lab_destroy(lab **l)
{
    sn_space_destroy(&(*l)->file.space);
    kn_device_close(&(*l)->dev);
    free((*l)->file.text);
    free(*l);
    *l = NULL;
}

sn_trainer *lab_trainer(lab *l)
{
    sn_trainer *t = NULL;
    es_error err = {0};
    ck_assert_ok_err(sn_trainer_new(&l->file, l->dev, &t, &err), &err);
    return t;
}

sr_arch *lab_arch(const lab *l, uint64_t seed)
{
    const sr_space *choices = sn_space_choices(l->file.space);
    sr_arch *a = sr_arch_new(choices);
    es_rng r = es_rng_make(seed, ES_USE_TEST, 0);
    sr_arch_random(choices, &r, a);
    return a;
}

void lab_run(sn_trainer *t, uint64_t until)
{
    es_error err = {0};
    sn_report r;
    ck_assert_ok_err(sn_trainer_run(t, until, NULL, &r, &err), &err);
    ck_assert_uint_eq(r.step, until < sn_train_steps(t) ? until : sn_train_steps(t));
}

sn_version *lab_save(sn_trainer *t)
{
    es_error err = {0};
    sn_version *v = NULL;
    ck_assert_ok_err(sn_trainer_save(t, &v, &err), &err);
    return v;
}
