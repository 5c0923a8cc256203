/* Texts and files of token ids: whatever is accepted has ids inside the vocabulary, and windows can be cut from it. */
#include "supernet/data/tokens.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int items[] = {1, 2, 4, 1};
    es_error e;
    sn_tokens t;
    if (size < 2)
        return 0;
    int kind = data[0] % 4, vocabulary = 1 + data[1], window = 1 + data[0] / 4;
    if (sn_tokens_parse("fuzz", data + 2, size - 2, kind == 3, items[kind], vocabulary, &t, &e) != ES_OK)
        return 0;
    int32_t *x = malloc(2 * (size_t)window * sizeof *x);
    for (int64_t i = 0; i < sn_tokens_windows(&t, window, false); i++)
        sn_tokens_window(&t, window, i * window, x, x + window);
    int64_t rows = sn_tokens_windows(&t, window, true);
    if (rows > 0)
        sn_tokens_window(&t, window, sn_tokens_offset(&t, window, 1, data[1]) + (rows - 1) * window, x, x + window);
    for (int64_t i = 0; i < t.n; i++)
        if (sn_token(&t, i) < 0 || sn_token(&t, i) >= vocabulary)
            abort();
    free(x);
    sn_tokens_free(&t);
    return 0;
}
