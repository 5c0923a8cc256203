/* loglines.h - the last lines this process logged, to send with a failed job.
 *
 *     wk_loglines_start();                    // hooks es_log
 *     char *text = wk_loglines_take();        // the last WK_LOG_BYTES or less, whole lines; caller owns; keeps them
 */
#ifndef WK_LOGLINES_H
#define WK_LOGLINES_H

#include <stddef.h>

enum { WK_LOG_BYTES = 16 << 10 };

void wk_loglines_start(void);
/* The last whole lines that fit, without taking them; "" when nothing was logged since the last call. */
void wk_loglines_tail(char *out, size_t size);
char *wk_loglines_take(void);

#endif
