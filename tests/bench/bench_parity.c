/* Whole-model parity: the loss of every step of a search file's training on this processor in fp32 and on a GPU in fp32 and in bf16, from the same weights and the
 * same batches.
 *
 *     build/tests/bench/bench_parity examples/fashion.yaml [--steps 50] [--device cuda:0]
 *
 * Markdown on standard output: the three curves, and how far apart they are. The loss is that of the largest subnet on the labels, before the step's update; each step
 * trains all the subnets of the file's method. fp32 on both must stay within 1e-3 of each other (exit 1 otherwise), relative to the loss: sums are in another order,
 * and every step feeds the difference on. Without the GPU the processor is compared with itself at one thread, which must be equal in every bit. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/str.h"
#include "supernet/train/train.h"

enum { CURVES = 3 };
static const double TIGHT = 1e-3;

static void check(es_status s, const es_error *e)
{
    char line[700];
    if (s == ES_OK)
        return;
    fprintf(stderr, "bench_parity: %s\n", es_error_line(e, line, sizeof line));
    exit(1);
}

static void curve(const sn_search_file *f, kn_device *dev, bool exact, int steps, double *out)
{
    sn_trainer *t = NULL;
    es_error e;
    check(sn_trainer_new(f, dev, &t, &e), &e);
    if (exact)
        sn_trainer_exact(t);
    for (int i = 0; i < steps; i++) {
        sn_report r;
        check(sn_trainer_run(t, (uint64_t)i + 1, NULL, &r, &e), &e);
        out[i] = r.mean_loss;
    }
    sn_trainer_destroy(&t);
}

static double furthest(const double *a, const double *b, int n, int *at)
{
    double most = 0;
    *at = 0;
    for (int i = 0; i < n; i++) {
        double d = fabs(a[i] - b[i]) / fabs(b[i]);
        if (d > most) {
            most = d;
            *at = i;
        }
    }
    return most;
}

int main(int argc, char **argv)
{
    const char *path = NULL, *device = "cuda:0";
    int64_t steps = 50;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--steps") == 0 && i + 1 < argc && es_str_to_i64(argv[i + 1], false, &steps) && steps > 0 &&
            steps <= 100000)
            i++;
        else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
            device = argv[++i];
        else if (argv[i][0] != '-' && !path)
            path = argv[i];
        else
            return fprintf(stderr, "usage: bench_parity FILE.yaml [--steps 50] [--device cuda:0]\n"), 2;
    }
    if (!path)
        return fprintf(stderr, "usage: bench_parity FILE.yaml [--steps 50] [--device cuda:0]\n"), 2;
    sn_search_file *f = NULL;
    kn_device *cpu = NULL, *other = NULL;
    es_error e, none;
    char line[700];
    check(sn_search_file_load(path, &f, &e), &e);
    check(kn_device_open("cpu", &cpu, &e), &e);
    if (kn_device_open(device, &other, &none) != ES_OK) {
        fprintf(stderr, "%s\n", es_error_line(&none, line, sizeof line));
        check(kn_device_open("cpu:1", &other, &e), &e);
    }
    bool gpu = kn_device_backend(other) == KN_BACKEND_CUDA;
    int curves = gpu ? CURVES : 2, n = (int)steps, at;
    const char *const names[CURVES] = {"cpu fp32", gpu ? "GPU fp32" : "cpu, one thread", "GPU bf16"};
    double *loss[CURVES];
    for (int k = 0; k < curves; k++) {
        loss[k] = es_xcalloc((size_t)n, sizeof *loss[k]);
        curve(f, k == 0 ? cpu : other, k < 2, n, loss[k]);
    }
    printf("%s: %s; %s\n\n| step | %s | %s |%s\n|---|---|---|%s\n", path, kn_device_model(cpu), kn_device_model(other),
           names[0], names[1], gpu ? " GPU bf16 |" : "", gpu ? "---|" : "");
    for (int i = 0; i < n; i++) {
        printf("| %d | %.6f | %.6f |", i, loss[0][i], loss[1][i]);
        if (gpu)
            printf(" %.6f |", loss[2][i]);
        printf("\n");
    }
    double far = furthest(loss[1], loss[0], n, &at);
    printf("\nlargest relative difference: %s %.3g (step %d)", names[1], far, at);
    if (gpu) {
        double bf16 = furthest(loss[2], loss[0], n, &at);
        printf(", %s %.3g (step %d)", names[2], bf16, at);
    }
    printf("\n");
    for (int k = 0; k < curves; k++)
        free(loss[k]);
    kn_device_close(&cpu);
    kn_device_close(&other);
    sn_search_file_destroy(&f);
    return far > (gpu ? TIGHT : 0) ? 1 : 0;
}
