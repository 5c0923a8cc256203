/* tokens.h - sequences of tokens for language models, and the windows that are samples of them.
 *
 *     sn_tokens split[SN_SPLITS] = {0};
 *     sn_tokens_open(&file->data, 1024, 256, split, err);            // reads, checks ids against the vocabulary, holds out the validation tokens
 *     int64_t at = sn_tokens_offset(&split[0], 1024, seed, epoch);   // where window 0 of this epoch begins
 *     sn_tokens_window(&split[0], 1024, at + row * 1024, x, next);   // x: 1,024 tokens; next: each one's successor
 *
 * An epoch cuts the training tokens into windows side by side, from an offset that is a function of (seed, epoch), so that no token stays at one position for
 * ever; the windows' order is the loader's permutation. Validation and test are cut from their first token; what is left at the end, less than a window, is not scored.
 */
#ifndef SN_DATA_TOKENS_H
#define SN_DATA_TOKENS_H

#include "supernet/data/data.h"

void sn_tokens_free(sn_tokens *t);
/* text: bytes are tokens; else NPY (one row of uint8, uint16, uint32), or raw numbers of raw_item bytes, little-endian. */
es_status sn_tokens_parse(const char *name, const void *bytes, size_t size, bool text, int raw_item, int vocabulary,
                          sn_tokens *out, es_error *err) ES_MUST_CHECK;
es_status sn_tokens_read(const sn_data_config *c, const char *path, int vocabulary, sn_tokens *out,
                         es_error *err) ES_MUST_CHECK;
/* Every split has more than `window` tokens, or (validation, test) none. On failure the caller frees what is there. */
es_status sn_tokens_open(const sn_data_config *c, int window, int vocabulary, sn_tokens split[SN_SPLITS],
                         es_error *err) ES_MUST_CHECK;

int32_t sn_token(const sn_tokens *t, int64_t i);
int64_t sn_tokens_windows(const sn_tokens *t, int window, bool training); /* training: one fewer, for the offset */
int64_t sn_tokens_offset(const sn_tokens *t, int window, uint64_t seed, uint64_t epoch);
void sn_tokens_window(const sn_tokens *t, int window, int64_t at, int32_t *x, int32_t *next);

#endif
