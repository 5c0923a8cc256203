/* table.h - aligned columns for people.
 *
 *     cl_table t; cl_table_begin(&t, "architecture", "accuracy>", NULL);      // '>' at the end: aligned to the right
 *     cl_table_cell(&t, "%s", arch); cl_table_cell(&t, "%.4f", accuracy);     // row by row
 *     cl_table_end(&t, stdout);
 */
#ifndef CL_TABLE_H
#define CL_TABLE_H

#include "base/str.h"

#include <stdio.h>

enum { CL_COLUMNS_MAX = 12 };
typedef struct cl_table {
    int columns, cells, cap;
    bool right[CL_COLUMNS_MAX];
    char **cell;
} cl_table;

void cl_table_begin(cl_table *t, ...) __attribute__((sentinel));
void cl_table_cell(cl_table *t, const char *fmt, ...) ES_PRINTF(2, 3);
void cl_table_end(cl_table *t, FILE *f); /* prints and frees */

char *cl_count(int64_t n, char buf[32]);   /* 1234567: "1.23M" */
char *cl_duration(double s, char buf[32]); /* 95: "1 min 35 s" */

#endif
