/* space.h - all candidates: a list of choices, each with options, some present only under a condition.
 *
 *     sr_space *sp = sr_space_new();
 *     int depth = sr_space_add(sp, "stages.0.depth", (const char *const[]){"1", "2", "3"}, 3, -1, 0);
 *     sr_space_add(sp, "stages.0.blocks.2.kernel", (const char *const[]){"3", "5"}, 2, depth, 1u << 2);   // only when depth is option 2
 *
 *     sr_arch *a = sr_arch_new(sp);
 *     sr_arch_random(sp, &rng, a);                              // uniform per active choice
 *     char *text = sr_arch_text(sp, a);                          // "stages.0.depth=3;stages.0.blocks.2.kernel=5": canonical
 *
 * An architecture is one option per active choice. Genes of inactive choices are always 0 (canonical form), so equal architectures have equal
 * bytes. Options are ordered from smallest to largest where that has a meaning: sr_arch_smallest and _largest rely on it.
 * Pure: no input or output, no clock.
 */
#ifndef SR_SPACE_H
#define SR_SPACE_H

#include "base/hash.h"
#include "base/rng.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { SR_CHOICES_MAX = 512, SR_OPTIONS_MAX = 32 };

typedef struct sr_choice {
    const char *name;
    int options;
    const char *const *labels;
    int parent;           /* index of an earlier choice, or -1: always present */
    uint32_t parent_mask; /* present when the parent is present and its option's bit is set */
} sr_choice;

typedef struct sr_space sr_space;
typedef struct sr_arch {
    int n;
    uint8_t gene[]; /* n option indices */
} sr_arch;

sr_space *sr_space_new(void);
void sr_space_destroy(sr_space **sp);
int sr_space_add(sr_space *sp, const char *name, const char *const *labels, int options, int parent,
                 uint32_t parent_mask); /* copies */
int sr_space_choices(const sr_space *sp);
const sr_choice *sr_space_choice(const sr_space *sp, int i);
double sr_space_log10_size(const sr_space *sp);         /* of the number of distinct architectures */
bool sr_space_count(const sr_space *sp, uint64_t *out); /* exact; false when above 2^63 */

sr_arch *sr_arch_new(const sr_space *sp); /* caller frees with free() */
bool sr_arch_active(const sr_space *sp, const sr_arch *a, int choice);
void sr_arch_canonicalise(const sr_space *sp, sr_arch *a); /* zeroes inactive genes */
void sr_arch_random(const sr_space *sp, es_rng *r, sr_arch *out);
void sr_arch_smallest(const sr_space *sp, sr_arch *out);
void sr_arch_largest(const sr_space *sp, sr_arch *out);
void sr_arch_mutate(const sr_space *sp, es_rng *r, double per_gene, const sr_arch *from,
                    sr_arch *out); /* at least one active gene changes */
void sr_arch_crossover(const sr_space *sp, es_rng *r, const sr_arch *a, const sr_arch *b,
                       sr_arch *out); /* uniform per gene */
void sr_arch_copy(sr_arch *to, const sr_arch *from);
bool sr_arch_equal(const sr_arch *a, const sr_arch *b);
bool sr_arch_nth(const sr_space *sp, uint64_t index, sr_arch *out); /* enumeration in gene order; false past the end */
char *sr_arch_text(const sr_space *sp, const sr_arch *a);           /* canonical; caller owns */
es_status sr_arch_parse(const sr_space *sp, const char *text, sr_arch *out, es_error *err) ES_MUST_CHECK;
void sr_arch_id(const sr_space *sp, const sr_arch *a, es_id *out); /* 128 bit, of the canonical text */

#ifdef __cplusplus
}
#endif
#endif
