/* Deep Model Assembling against end-to-end training at equal multiply-adds: every arm on the same data, over several seeds.
 *
 *     bench_modules examples/fashion-modules.yaml [--seeds 3] [--device cpu]
 *
 * One line a seed: test accuracy of the meta model, of the assembled network before and after fine-tuning, and of the end-to-end run; then means, the mean
 * paired difference and its standard error. Costs are multiply-adds of training (sn_modules_plan). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "supernet/train/train.h"

enum { META, ASSEMBLED, TUNED, END_TO_END, ARMS, SEEDS_MAX = 100 };
static const char *const arm_names[ARMS] = {"meta", "assembled", "fine-tuned", "end-to-end"};

static es_status score(sn_trainer *t, const sr_arch *a, double *out, es_error *err)
{
    sn_evaluation e;
    ES_RETURN(sn_evaluate(t, a, SN_TEST_SPLIT, 0, &e, err));
    *out = (double)e.correct / (double)e.samples;
    return ES_OK;
}

/* One phase from `from` (part: the meta model; fine-tuning: the assembled weights) to *out. */
static es_status phase(sn_trainer *t, sn_phase ph, int part, const sn_version *from, sn_version **out, es_error *err)
{
    sn_report r;
    ES_RETURN(sn_trainer_phase(t, ph, part, ph == SN_PHASE_PART ? from : NULL, err));
    if (ph == SN_PHASE_FINETUNE)
        ES_RETURN(sn_trainer_load(t, from, err));
    ES_RETURN(sn_trainer_run(t, UINT64_MAX, NULL, &r, err));
    fprintf(stderr, "phase %d part %d: %" PRIu64 " steps, loss %.4f, %.0f images/s\n", (int)ph, part, r.step,
            r.mean_loss, r.images_per_s);
    return out ? sn_trainer_save(t, out, err) : ES_OK;
}

static es_status one_seed(const sn_search_file *f, kn_device *dev, double accuracy[ARMS], sn_modules_plan *plan,
                          es_error *err)
{
    sn_trainer *t = NULL;
    sn_version *meta = NULL, *parts[17] = {NULL}, *assembled = NULL;
    sr_arch *a = sr_arch_new(sn_space_choices(f->space));
    es_status s;
    sr_arch_largest(sn_space_choices(f->space), a);
    ES_GOTO(sn_trainer_new(f, dev, &t, err));
    ES_GOTO(sn_modules_describe(t, plan, err));
    ES_GOTO(phase(t, SN_PHASE_META, 0, NULL, &meta, err));
    ES_GOTO(score(t, a, &accuracy[META], err));
    for (int k = 0; k < plan->parts; k++)
        ES_GOTO(phase(t, SN_PHASE_PART, k + 1, meta, &parts[k], err));
    ES_GOTO(sn_modules_assemble(t, (const sn_version *const *)parts, plan->parts, &assembled, err));
    ES_GOTO(sn_trainer_phase(t, SN_PHASE_FINETUNE, 0, NULL, err));
    ES_GOTO(sn_trainer_load(t, assembled, err));
    ES_GOTO(score(t, a, &accuracy[ASSEMBLED], err));
    ES_GOTO(phase(t, SN_PHASE_FINETUNE, 0, assembled, NULL, err));
    ES_GOTO(score(t, a, &accuracy[TUNED], err));
    ES_GOTO(phase(t, SN_PHASE_END_TO_END, 0, NULL, NULL, err));
    ES_GOTO(score(t, a, &accuracy[END_TO_END], err));
fail:
    for (int k = 0; k < 17; k++)
        sn_version_destroy(&parts[k]);
    sn_version_destroy(&meta);
    sn_version_destroy(&assembled);
    sn_trainer_destroy(&t);
    free(a);
    return s;
}

static void summary(double accuracy[][ARMS], int n)
{
    double mean[ARMS] = {0}, difference = 0, square = 0;
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < ARMS; k++)
            mean[k] += accuracy[i][k] / n;
        difference += (accuracy[i][TUNED] - accuracy[i][END_TO_END]) / n;
    }
    for (int i = 0; i < n; i++)
        square += pow(accuracy[i][TUNED] - accuracy[i][END_TO_END] - difference, 2);
    printf("mean of %d seeds:", n);
    for (int k = 0; k < ARMS; k++)
        printf(" %s %.2f%%", arm_names[k], 100 * mean[k]);
    printf("; fine-tuned - end-to-end %+.2f points", 100 * difference);
    if (n > 1)
        printf(" (standard error %.2f)", 100 * sqrt(square / (n - 1) / n));
    printf("\n");
}

static void costs(const sn_modules_plan *p)
{
    double whole = p->macs[SN_PHASE_META] + p->macs[SN_PHASE_PART] + p->macs[SN_PHASE_FINETUNE];
    printf("training multiply-adds: meta %.3g, parts %.3g, fine-tuning %.3g, together %.3g; end to end %.3g; critical "
           "path with every part at once %.3g\n",
           p->macs[SN_PHASE_META], p->macs[SN_PHASE_PART], p->macs[SN_PHASE_FINETUNE], whole,
           p->macs[SN_PHASE_END_TO_END], p->critical_macs);
}

int main(int argc, char **argv)
{
    static double accuracy[SEEDS_MAX][ARMS];
    const char *device = "cpu";
    int64_t seeds = 3;
    sn_search_file *f = NULL;
    kn_device *dev = NULL;
    sn_modules_plan plan = {0};
    es_error err = {0};
    es_status s = ES_OK;
    char line[700];
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--device") == 0)
            device = argv[i + 1];
        else if (!(strcmp(argv[i], "--seeds") == 0 && es_str_to_i64(argv[i + 1], false, &seeds) && seeds >= 1 &&
                   seeds <= SEEDS_MAX))
            argc = 0;
    }
    if (argc < 2 || argc % 2 != 0) {
        fprintf(stderr, "usage: bench_modules SEARCH.yaml [--seeds 1..100] [--device cpu]\n");
        return 2;
    }
    ES_GOTO(sn_search_file_load(argv[1], &f, &err));
    ES_GOTO(kn_device_open(device, &dev, &err));
    for (int i = 0; i < (int)seeds; i++, f->seed++) {
        ES_GOTO(one_seed(f, dev, accuracy[i], &plan, &err));
        printf("seed %" PRIu64 ":", f->seed);
        for (int k = 0; k < ARMS; k++)
            printf(" %s %.2f%%", arm_names[k], 100 * accuracy[i][k]);
        printf("\n");
        fflush(stdout);
    }
    costs(&plan);
    summary(accuracy, (int)seeds);
fail:
    if (s != ES_OK)
        fprintf(stderr, "bench_modules: %s\n", es_error_line(&err, line, sizeof line));
    sn_search_file_destroy(&f);
    kn_device_close(&dev);
    return s == ES_OK ? 0 : 1;
}
