/* progress.h - how a search is doing, as one line: rewritten in place on a terminal, plain lines now and then elsewhere.
 *
 *     cl_progress p; cl_progress_begin(&p, stderr);
 *     cl_progress_show(&p, search_json);        // SEARCH of schemas/status.md, as often as you like
 *     cl_progress_end(&p);
 */
#ifndef CL_PROGRESS_H
#define CL_PROGRESS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { CL_PLAIN_EVERY_MS = 10000 };

typedef struct cl_progress {
    FILE *f;
    bool terminal, dirty, unsaid;
    int64_t began_ms, shown_ms;
    char last[512], phase[64];
} cl_progress;

void cl_progress_begin(cl_progress *p, FILE *f);
void cl_progress_show(cl_progress *p, const json_t *search);
void cl_progress_end(cl_progress *p); /* shows what was shown last, for good */

/* The line itself. */
void cl_progress_line(const json_t *search, double elapsed_s, char *out, size_t size);

#endif
