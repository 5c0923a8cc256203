/* sequence.h - several messages in one fuzzer's input: each two bytes of length (the lower first), one byte for the fuzzer, and that many bytes.
 *
 *     for (fuzz_sequence q = {data, size}; fuzz_sequence_next(&q);)
 *         deliver(q.tag, q.bytes, q.n);
 */
#ifndef ES_TESTS_FUZZ_SEQUENCE_H
#define ES_TESTS_FUZZ_SEQUENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fuzz_sequence {
    const uint8_t *at;
    size_t left;
    const uint8_t *bytes; /* of the current message */
    size_t n;
    uint8_t tag;
} fuzz_sequence;

/* The last message ends with the input, whatever its length says. */
static inline bool fuzz_sequence_next(fuzz_sequence *q)
{
    if (q->left < 3)
        return false;
    size_t n = (size_t)(q->at[0] | q->at[1] << 8);
    q->tag = q->at[2];
    q->left -= 3;
    q->bytes = q->at + 3;
    q->n = n < q->left ? n : q->left;
    q->at = q->bytes + q->n;
    q->left -= q->n;
    return true;
}

#endif
