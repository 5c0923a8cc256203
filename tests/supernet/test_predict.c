/* The memory that is predicted from the cost model, beside what trainers really hold. */
#include <malloc.h>
#include <stdlib.h>

#include "supernet/train/links.h"
#include "supernet/train/plans.h"
#include "tests/check_main.h"
#include "tests/supernet/lab.h"
#include "tests/supernet/spaces.h"

enum { GRAPH_BYTES = 4660 }; /* of a kernel in a CUDA graph: docs/measurements.md */

/* Weights, optimiser and workspace as they are, and the passes that repeat as a GPU would record them. */
static double ratio(int batch, kn_optim_kind kind)
{
    lab *l = lab_new("cpu:1", SN_METHOD_SANDWICH);
    l->file.supernet.batch = batch;
    l->file.supernet.optimizer.kind = kind;
    sn_trainer *t = lab_trainer(l);
    size_t before = sn_trainer_memory_bytes(t); /* data, weights, optimiser: nothing has been planned */
    lab_run(t, 2);
    sn_cost cost;
    sr_arch *largest = sr_arch_new(sn_space_choices(l->file.space));
    sr_arch_largest(sn_space_choices(l->file.space), largest);
    ck_assert_ok(sn_space_cost(l->file.space, largest, &cost, NULL));
    free(largest);
    size_t kernels;
    ck_assert_int_eq(sn_plans_count(t->plans, &kernels), 2);
    double fixed = 4.0 * (double)cost.params * (kind == KN_SGD ? 3 : 4), graphs = (double)(kernels * GRAPH_BYTES),
           real = (double)(sn_trainer_memory_bytes(t) - before) + fixed + graphs,
           predicted = (double)sn_search_file_memory(&l->file, true);
    fprintf(stderr, "batch %d: predicted %.0f KiB, really %.0f KiB, %.0f of it for %zu recorded kernels of %d layers\n",
            batch, predicted / 1024, real / 1024, graphs / 1024, kernels, cost.layers);
    ck_assert_double_lt((double)sn_search_file_memory(&l->file, false), predicted * 64);
    sn_trainer_destroy(&t);
    lab_destroy(&l);
    return predicted / real;
}

START_TEST(training_within_a_factor_of_two)
    {
        static const int batches[] = {8, 64, 256};
        for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
            double r = ratio(batches[i], i == 1 ? KN_ADAMW : KN_SGD);
            ck_assert_double_ge(r, 0.5);
            ck_assert_double_le(r, 2);
        }
    }
END_TEST

/* What a method says of itself (SN_METHODS) is what it keeps. */
START_TEST(passes_that_repeat_are_known)
    {
        static const int repeating[] = {
#define X(NAME, name, spelling, repeating) repeating,
            SN_METHODS(X)
#undef X
        };
        for (int m = 0; m < SN_METHOD_COUNT; m++) {
            lab *l = lab_new("cpu:1", (sn_method)m);
            sn_trainer *t = lab_trainer(l);
            size_t kernels;
            es_error err = {0};
            if (m == SN_METHOD_MODULES)
                ck_assert_ok_err(sn_trainer_phase(t, SN_PHASE_META, 0, NULL, &err), &err);
            lab_run(t, 3);
            ck_assert_int_eq(sn_plans_count(t->plans, &kernels), repeating[m]);
            sn_trainer_destroy(&t);
            lab_destroy(&l);
        }
    }
END_TEST

/* Plans that are kept while subnets are scored, in the host's memory: what the heap has grown by, and what is predicted for them. */
static double scoring(int subnets)
{
    lab *l = lab_new("cpu:1", SN_METHOD_SANDWICH);
    l->file.evaluations = 0;
    int64_t without = sn_search_file_memory(&l->file, false);
    l->file.evaluations = subnets;
    double predicted = (double)(sn_search_file_memory(&l->file, false) - without);
    sn_trainer *t = lab_trainer(l);
    sn_trainer_keep_bytes(t, 0);
    mallopt(M_MMAP_THRESHOLD, 32 << 10); /* arrays that tensors are in are no part of what is counted */
    sr_arch *largest = sr_arch_new(sn_space_choices(l->file.space));
    sr_arch_largest(sn_space_choices(l->file.space), largest);
    sn_evaluation e;
    ck_assert_ok(sn_evaluate(t, largest, SN_VALIDATION_SPLIT, 96, &e, NULL));
    size_t before = mallinfo2().uordblks;
    int first = sn_link_plans_count(t->link_plans);
    for (int i = 0; i < subnets; i++) {
        sr_arch *a = lab_arch(l, (uint64_t)i);
        ck_assert_ok(sn_evaluate(t, a, SN_VALIDATION_SPLIT, 96, &e, NULL));
        free(a);
    }
    int plans = sn_link_plans_count(t->link_plans);
    size_t grown = mallinfo2().uordblks - before;
    double each = before > 0 ? (double)grown / (plans - first) : 10240, /* the heap of a sanitizer does not say */
        real = each * plans;
    fprintf(stderr, "%d subnets scored: %d plans of %.1f KiB, %.0f KiB; predicted %.0f KiB\n", subnets, plans,
            each / 1024, real / 1024, predicted / 1024);
    free(largest);
    sn_trainer_destroy(&t);
    lab_destroy(&l);
    return predicted / real;
}

START_TEST(kept_plans_of_scoring_are_counted)
    {
        double few = scoring(3), many = scoring(300);
        ck_assert_double_ge(few, 1); /* never more than predicted, and that is not out of all proportion */
        ck_assert_double_le(few, 6);
        ck_assert_double_ge(many, 1);
        ck_assert_double_le(many, 6);
    }
END_TEST

/* The benchmark space: two recordings were measured at 4 MiB each, plans of scoring on a processor at 13 MiB for all units that 150 random subnets have. */
START_TEST(as_measured_of_the_benchmark)
    {
        sn_search_file f = {.space = space_load("mbconv32"), .task = SN_TASK_IMAGES};
        f.supernet = (sn_supernet_config){.method = SN_METHOD_SINGLE_PATH, .batch = 512};
        int64_t training = sn_search_file_memory(&f, true), scoring = sn_search_file_memory(&f, false);
        f.supernet.method = SN_METHOD_SANDWICH;
        f.evaluations = 150;
        double graphs = (double)(sn_search_file_memory(&f, true) - training) / (1 << 20),
               plans = (double)(sn_search_file_memory(&f, false) - scoring) / (1 << 20);
        fprintf(stderr, "mbconv32: recordings %.1f MiB, plans %.1f MiB\n", graphs, plans);
        ck_assert_double_ge(graphs, 4);
        ck_assert_double_le(graphs, 16);
        ck_assert_double_ge(plans, 13);
        ck_assert_double_le(plans, 52);
        f.evaluations = 1000000;
        plans = (double)(sn_search_file_memory(&f, false) - scoring) / (1 << 20);
        ck_assert_double_le(plans, 80); /* the table is full */
        sn_space_destroy(&f.space);
    }
END_TEST

ES_TEST_MAIN("predict", training_within_a_factor_of_two, passes_that_repeat_are_known, as_measured_of_the_benchmark,
             kept_plans_of_scoring_are_counted)
