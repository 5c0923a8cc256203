#include "client/progress.h"

#include "base/clock.h"
#include "client/connect.h"
#include "client/table.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

void cl_progress_line(const json_t *search, double elapsed_s, char *out, size_t size)
{
    const json_t *p = json_object_get(search, "progress"), *t = json_object_get(p, "training"),
                 *e = json_object_get(p, "evaluations");
    es_str s = ES_STR_INIT;
    char took[32];
    const char *phase = cl_text(search, "phase"), *state = cl_text(search, "state");
    es_str_addf(&s, "%s: %s", cl_text(search, "name"), strcmp(state, "running") != 0 || !phase[0] ? state : phase);
    double step = cl_num(t, "step"), steps = cl_num(t, "steps"), epochs = cl_num(t, "epochs");
    if (steps > 0) {
        if (epochs > 0)
            es_str_addf(&s, "  epoch %.1f/%.4g", step / steps * epochs, epochs);
        else
            es_str_addf(&s, "  step %.0f/%.0f", step, steps);
        if (cl_num(t, "loss") > 0)
            es_str_addf(&s, "  loss %.3f", cl_num(t, "loss"));
        if (cl_num(t, "images_per_s") > 0)
            es_str_addf(&s, "  %.0f images/s", cl_num(t, "images_per_s"));
    }
    if (cl_int(e, "total") > 0)
        es_str_addf(&s, "  evaluations %" PRId64 "/%" PRId64, cl_int(e, "done"), cl_int(e, "total"));
    es_str_addf(&s, "  %s", cl_duration(elapsed_s, took));
    if (!cl_null(p, "left_s"))
        es_str_addf(&s, ", left %s", cl_duration(cl_num(p, "left_s"), took));
    snprintf(out, size, "%s", s.p);
    es_str_free(&s);
}

void cl_progress_begin(cl_progress *p, FILE *f)
{
    *p = (cl_progress){.f = f, .terminal = isatty(fileno(f)), .began_ms = es_clock_mono_ms(es_clock_system())};
}

void cl_progress_show(cl_progress *p, const json_t *search)
{
    int64_t now = es_clock_mono_ms(es_clock_system());
    char line[sizeof p->last];
    cl_progress_line(search, (double)(now - p->began_ms) / 1000, line, sizeof line);
    const char *phase = cl_text(search, "phase");
    bool turned = strcmp(phase, p->phase) != 0;
    if (!p->terminal && turned && p->unsaid) /* how the phase before ended */
        fprintf(p->f, "%s\n", p->last);
    p->unsaid = p->terminal || !turned;
    snprintf(p->phase, sizeof p->phase, "%s", phase);
    snprintf(p->last, sizeof p->last, "%s", line);
    if (p->terminal) {
        fprintf(p->f, "\r%s\033[K", line);
        fflush(p->f);
        p->dirty = true;
    } else if (turned || !p->shown_ms || now - p->shown_ms >= CL_PLAIN_EVERY_MS) {
        fprintf(p->f, "%s\n", line);
        fflush(p->f);
        p->shown_ms = now;
        p->unsaid = false;
    }
}

void cl_progress_end(cl_progress *p)
{
    if (p->terminal && p->dirty)
        fputc('\n', p->f);
    else if (!p->terminal && p->unsaid)
        fprintf(p->f, "%s\n", p->last);
    fflush(p->f);
    p->dirty = false;
}
