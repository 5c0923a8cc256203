/* The memory that is predicted from the cost model, beside what trainers really hold. */
#include <stdlib.h>

#include "tests/check_main.h"
#include "tests/supernet/lab.h"

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
    double fixed = 4.0 * (double)cost.params * (kind == KN_SGD ? 3 : 4),
           real = (double)(sn_trainer_memory_bytes(t) - before) + fixed,
           predicted = (double)sn_search_file_memory(&l->file, true);
    fprintf(stderr, "batch %d: predicted %.0f KiB, really %.0f KiB\n", batch, predicted / 1024, real / 1024);
    ck_assert_double_lt((double)sn_search_file_memory(&l->file, false), predicted * 64);
    sn_trainer_destroy(&t);
    lab_destroy(&l);
    return predicted / real;
}

START_TEST(within_a_factor_of_two)
    {
        static const int batches[] = {8, 64, 256};
        for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
            double r = ratio(batches[i], i == 1 ? KN_ADAMW : KN_SGD);
            ck_assert_double_ge(r, 0.5);
            ck_assert_double_le(r, 2);
        }
    }
END_TEST

ES_TEST_MAIN("predict", within_a_factor_of_two)
