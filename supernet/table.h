/* table.h - a published table instead of training: `task: {kind: table, file: ..., architecture: COLUMN, value: COLUMN, report: COLUMN}`.
 *
 *     sn_table *t; sn_table_open(&file->table, file->space, &t, err);
 *     sn_table_value(t, arch, SN_VALIDATION_SPLIT, &accuracy, err);         // column `value`; the test split reads `report`
 *     sn_evaluation e; sn_table_evaluate(t, arch, SN_TEST_SPLIT, &e, err);  // the same as counts, for code that expects an evaluation
 *
 * The key is the architecture in the space's own notation; a key that stands in several columns is named by all of them ("n0,n1,r0") and read joined by
 * commas. Rows whose architecture the space does not have are refused: a table and a space that disagree are a mistake. Cells may be quoted
 * ("a ""b"", c"). Memory: about 60 bytes a row.
 *
 * Accuracies: a column with any value above 1 is in percent and is divided by 100. sn_table_evaluate gives them as parts of SN_TABLE_SAMPLES.
 */
#ifndef SN_TABLE_H
#define SN_TABLE_H

#include "supernet/data/data.h"
#include "supernet/searchfile/searchfile.h"
#include "supernet/train/train.h"

enum { SN_TABLE_SAMPLES = 1000000000 };

typedef struct sn_table sn_table;
es_status sn_table_open(const sn_table_config *c, const sn_space *sp, sn_table **out,
                        es_error *err) ES_MUST_CHECK; /* borrows sp */
es_status sn_table_parse(const sn_table_config *c, const sn_space *sp, const char *text, size_t n, sn_table **out,
                         es_error *err) ES_MUST_CHECK;
void sn_table_close(sn_table **t);
int64_t sn_table_rows(const sn_table *t);
es_status sn_table_value(const sn_table *t, const sr_arch *a, sn_split split, double *out,
                         es_error *err) ES_MUST_CHECK; /* a fraction of 1 */
es_status sn_table_evaluate(const sn_table *t, const sr_arch *a, sn_split split, sn_evaluation *out,
                            es_error *err) ES_MUST_CHECK;

#endif
