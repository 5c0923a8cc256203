/* internal.h - the parser of search.yaml in three files: searchfile.c (the whole and its checks), training.c (the `supernet` section),
 * text.c (the normalised text). Internal to supernet/. */
#ifndef SN_SEARCHFILE_INTERNAL_H
#define SN_SEARCHFILE_INTERNAL_H

#include "base/yaml.h"
#include "supernet/searchfile/searchfile.h"

es_status sn_searchfile_read_supernet(const es_yaml_node *n, sn_supernet_config *c, es_error *err) ES_MUST_CHECK;
void sn_searchfile_supernet_defaults(sn_supernet_config *c);

/* Nodes that the normalised text shows with another text (an absolute path) or as another tree (the space of a file). */
enum { SN_REPLACED_MAX = 8 };
typedef struct sn_replaced {
    const es_yaml_node *node;
    const char *text;
    const es_yaml_node *tree;
} sn_replaced;
/* One line per top-level field, everything below it in flow style; the same document always gives the same bytes. Caller owns. */
char *sn_searchfile_text(const es_yaml_node *root, const sn_replaced *r, int count);

/* Readers of numbers that are stored narrower. */
es_status sn_searchfile_int(const es_yaml_node *n, const char *key, int min, int max, int *out,
                            es_error *err) ES_MUST_CHECK;
es_status sn_searchfile_float(const es_yaml_node *n, const char *key, double min, double max, float *out,
                              es_error *err) ES_MUST_CHECK;

#endif
