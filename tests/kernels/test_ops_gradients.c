/* First and second gradients of every op, by reference kernels, against central differences.
 *
 * Along a random direction u of one leaf, the derivative of a loss is measured with the five-point stencil at two step sizes. Where the two disagree
 * the direction crosses a kink (relu, a changing maximum) and another one is drawn; a wrong gradient makes them agree with each other and not with it. */
#include "tests/check_main.h"

#include <math.h>

#include "base/rng.h"
#include "tests/kernels/op_cases.h"

enum { DIRECTIONS = 3, TRIES = 30 };
static const double TOLERANCE = 3e-3;

/* L0 or L1 of the rig's data as it is now. */
static double loss_at(const op_rig *r, int level)
{
    kn_val last = r->y;
    double sum = 0;
    for (int i = 0; i < OP_INPUTS && level; i++)
        last = r->d[i] > last ? r->d[i] : last;
    op_values *v = op_values_new(r, last);
    if (level == 0)
        sum = op_dot(&v->t[r->y], &r->leaf[OP_INPUTS]);
    for (int i = 0; i < OP_INPUTS && level; i++)
        if (r->d[i] != KN_NONE) {
            kn_tensor s = v->t[r->d[i]]; /* dense, as the data of its slot is */
            s.p = r->slot[OP_SLOT_S + i];
            sum += op_dot(&v->t[r->d[i]], &s);
        }
    op_values_free(&v);
    return sum;
}

static double moved(const op_rig *r, int level, const kn_tensor *leaf, const float *at, const float *u, double h)
{
    for (int64_t i = 0; i < kn_shape_count(&leaf->shape); i++)
        ((float *)leaf->p)[op_nth(leaf, i)] = (float)(at[i] + h * u[i]);
    return loss_at(r, level);
}

static double stencil(const op_rig *r, int level, const kn_tensor *leaf, const float *at, const float *u, double h)
{
    double one = moved(r, level, leaf, at, u, h) - moved(r, level, leaf, at, u, -h);
    double two = moved(r, level, leaf, at, u, 2 * h) - moved(r, level, leaf, at, u, -2 * h);
    return (8 * one - two) / (12 * h);
}

/* Directions are multiples of 1/64 and the step is a power of two: what is added to a number is exact. */
static bool check_direction(const op_rig *r, int level, int leaf_index, const kn_tensor *gradient, const float *at,
                            const float *u, double h, bool *wrong)
{
    const kn_tensor *leaf = &r->leaf[leaf_index];
    double dot = 0, size = 0;
    for (int64_t i = 0; i < kn_shape_count(&leaf->shape); i++) {
        double part = (double)((const float *)gradient->p)[op_nth(gradient, i)] * u[i];
        dot += part;
        size += part * part;
    }
    double coarse = stencil(r, level, leaf, at, u, h), fine = stencil(r, level, leaf, at, u, h / 2);
    moved(r, level, leaf, at, u, 0);
    double allowed = TOLERANCE * (sqrt(size) + fabs(dot) + 0.03);
    if (fabs(coarse - fine) > allowed / 8)
        return false;
    *wrong = !(fabs(fine - dot) <= allowed);
    if (*wrong)
        fprintf(stderr, "%s: %s gradient by input %d is %g along a direction, differences give %g and %g\n", r->c->name,
                level ? "second" : "first", leaf_index, dot, fine, coarse);
    return true;
}

static int check_leaf(const op_rig *r, int level, int leaf_index, const kn_tensor *gradient)
{
    const kn_tensor *leaf = &r->leaf[leaf_index];
    int64_t n = kn_shape_count(&leaf->shape);
    es_rng rng = es_rng_make(77, ES_USE_TEST, (uint64_t)(10 * level + leaf_index));
    float *at = malloc(sizeof *at * (size_t)n), *u = malloc(sizeof *u * (size_t)n);
    int good = 0, bad = 0;
    for (int64_t i = 0; i < n; i++)
        at[i] = ((const float *)leaf->p)[op_nth(leaf, i)];
    for (int t = 0; t < TRIES && good < DIRECTIONS && !bad; t++) {
        bool wrong = false;
        double h = t < TRIES / 2
                       ? 1.0 / 128
                       : 1.0 / 1024; /* later tries go less far and touch fewer elements: fewer kinks to cross */
        for (int64_t i = 0; i < n; i++) {
            bool on = n < 8 || t < TRIES / 3 || es_rng_below(&rng, t < 2 * TRIES / 3 ? 4 : 16) == 0;
            u[i] = on ? ((float)es_rng_below(&rng, 129) - 64.0f) / 64.0f : 0.0f;
        }
        if (check_direction(r, level, leaf_index, gradient, at, u, h, &wrong))
            wrong ? bad++ : good++;
    }
    if (!bad && good < DIRECTIONS) {
        fprintf(stderr, "%s: input %d: only %d of %d directions are smooth\n", r->c->name, leaf_index, good, TRIES);
        bad++;
    }
    free(at);
    free(u);
    return bad;
}

static int check_case(const op_case *c)
{
    int bad = 0;
    if (c->flags & (OP_NO_GRAD | OP_NO_FD))
        return 0;
    op_rig *r = op_rig_new(c, 2);
    op_values *v = op_values_new(r, OP_ALL);
    for (int i = 0; i < OP_DERIVATIVES; i++) {
        if (i < OP_INPUTS && r->d[i] != KN_NONE)
            bad += check_leaf(r, 0, i, &v->t[r->d[i]]);
        if (r->dd[i] != KN_NONE)
            bad += check_leaf(r, 1, i, &v->t[r->dd[i]]);
    }
    op_values_free(&v);
    op_rig_free(&r);
    return bad;
}

/* The cases are dealt out to a few tests, each a process of its own. */
enum { PARTS = 4 };
static void check_part(int part)
{
    int bad = 0;
    for (int i = part; i < op_case_count; i += PARTS)
        bad += check_case(&op_cases[i]);
    ck_assert_int_eq(bad, 0);
}

START_TEST(part_0)
    {
        check_part(0);
    }
END_TEST
START_TEST(part_1)
    {
        check_part(1);
    }
END_TEST
START_TEST(part_2)
    {
        check_part(2);
    }
END_TEST
START_TEST(part_3)
    {
        check_part(3);
    }
END_TEST

ES_TEST_MAIN("ops_gradients", part_0, part_1, part_2, part_3)
