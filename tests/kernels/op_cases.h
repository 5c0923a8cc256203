/* op_cases.h - every op on many shapes, listed once: for the references against finite differences, and for every back end against the references.
 *
 *     for (int i = 0; i < op_case_count; i++) {
 *         op_rig *r = op_rig_new(&op_cases[i], 2);        // the graph with gradients and second gradients, and random data
 *         op_values *v = op_values_new(r, OP_ALL);        // every value, by reference kernels
 *         ...
 *     }
 *
 * A case builds one value y from its inputs. A rig adds r, shaped like y, and the loss L0 = sum y r; at level 1 the gradients d[i] of L0 by every
 * real input, and L1 = sum over i of d[i] s[i]; at level 2 the gradients dd[i] of L1 by every real input, and by r.
 */
#ifndef ES_TESTS_OP_CASES_H
#define ES_TESTS_OP_CASES_H

#include "kernels/device/device_internal.h"
#include "kernels/graph/graph_internal.h"

enum { OP_INPUTS = 6, OP_PARAMS = 6, OP_DERIVATIVES = OP_INPUTS + 1 };
enum { OP_SLOT_R = OP_INPUTS, OP_SLOT_S };

typedef enum op_kind {
    OP_ABSENT,
    OP_REAL,
    OP_POSITIVE,
    OP_FIXED /* real, but not differentiated by */,
    OP_LABELS,
    OP_PARAM
} op_kind;

typedef struct op_input {
    op_kind kind;
    int32_t classes; /* OP_LABELS: 0 to classes - 1 */
    kn_shape shape;
    kn_shape parent; /* OP_PARAM: the parameter that it is a slice of */
    int32_t start[KN_RANK_MAX];
} op_input;

enum {
    OP_NO_GRAD = 1,
    OP_ONCE = 2,  /* differentiable once */
    OP_NO_FD = 4, /* its gradient is not its derivative, by definition */
};

typedef struct op_case {
    const char *name;
    kn_val (*build)(kn_graph *g, const kn_val *in, const struct op_case *c);
    op_input in[OP_INPUTS];
    int i[OP_PARAMS];
    float f[4];
    unsigned flags;
} op_case;

extern const op_case op_cases[];
extern const int op_case_count;

/* A case as a graph with data. Leaf i is input i; leaf OP_INPUTS is r. */
typedef struct op_rig {
    const op_case *c;
    kn_params *params;
    kn_graph *g;
    int level;
    kn_val in[OP_INPUTS], y, r, d[OP_INPUTS], dd[OP_DERIVATIVES]; /* KN_NONE where there is none */
    void *slot[KN_SLOTS];                                         /* data of the inputs */
    float *flat;                                                  /* data of the parameters */
    kn_tensor leaf[OP_DERIVATIVES]; /* where the numbers of a real leaf are; p NULL: not real */
} op_rig;

op_rig *op_rig_new(const op_case *c, int level); /* ends the test when the graph is refused */
void op_rig_free(op_rig **r);

/* Host values of a graph's values, dense except parameter slices. */
typedef struct op_values {
    kn_tensor *t; /* by value */
    void **own;   /* what of that is freed: inputs and slices belong to the rig */
    uint32_t n;
} op_values;

enum { OP_ALL = 0 };
/* By reference kernels, up to and with the node that makes `last`. */
op_values *op_values_new(const op_rig *r, kn_val last);
void op_values_free(op_values **v);

int64_t op_nth(const kn_tensor *t, int64_t i); /* offset of element i in row order */
double op_dot(const kn_tensor *a, const kn_tensor *b);

#endif
