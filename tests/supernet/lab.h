/* lab.h - a whole small search in memory for the tests of training: bars data in files, a small space, a trainer.
 *
 *     lab *l = lab_new("cpu", SN_METHOD_SANDWICH);
 *     l->file.supernet.distill = SN_DISTILL_KL;              // before the first lab_trainer
 *     sn_trainer *t = lab_trainer(l);                        // the caller destroys it
 *     lab_destroy(&l);
 */
#ifndef ES_TESTS_SUPERNET_LAB_H
#define ES_TESTS_SUPERNET_LAB_H

#include "supernet/train/train.h"

typedef struct lab {
    sn_search_file file;
    kn_device *dev;
} lab;

lab *lab_new(const char *device, sn_method method);
void lab_destroy(lab **l);
sn_trainer *lab_trainer(lab *l);
sr_arch *lab_arch(const lab *l, uint64_t seed); /* random; caller frees */
void lab_run(sn_trainer *t, uint64_t until);
sn_version *lab_save(sn_trainer *t);

#endif
