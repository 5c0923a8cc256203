/* notation.h - how an architecture is written. One file notation_<name>.c and one line in the table in space.c each.
 *
 * compact: "stages.0 depth 2, width 24, kernels 3 and 5" is 0:d2:w24:k3.5; sections joined by '+'.
 * columns: the columns of a published table, joined by commas. nas-bench-201: "|op~0|+|op~0|op~1|+...".
 */
#ifndef SN_NOTATION_H
#define SN_NOTATION_H

#include "base/str.h"
#include "supernet/space/template.h"

typedef struct sn_notation {
    const char *name;
    es_status (*check)(const sn_space *sp, es_error *err); /* may this space be written so */
    void (*format)(const sn_space *sp, const sr_arch *a, es_str *out);
    es_status (*parse)(const sn_space *sp, const char *text, sr_arch *out, es_error *err); /* out is zeroed */
} sn_notation;

extern const sn_notation sn_notation_compact, sn_notation_columns, sn_notation_nas_bench_201;

/* Sets a field from the text of one of its options; ES_INVALID names the field and its options. */
es_status sn_notation_set(const sn_named *f, const char *text, size_t n, sr_arch *out, es_error *err) ES_MUST_CHECK;
/* The label of a field in an architecture (an absent choice: its smallest option). */
const char *sn_notation_label(const sn_named *f, const sr_arch *a);

#endif
