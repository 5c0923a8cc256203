#include "client/table.h"

#include "base/arena.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void add(cl_table *t, char *text)
{
    if (t->cells == t->cap)
        t->cell = es_xrealloc(t->cell, (size_t)(t->cap = t->cap ? t->cap * 2 : 64) * sizeof *t->cell);
    t->cell[t->cells++] = text;
}

void cl_table_begin(cl_table *t, ...)
{
    *t = (cl_table){0};
    va_list ap;
    va_start(ap, t);
    for (const char *name; (name = va_arg(ap, const char *)) && t->columns < CL_COLUMNS_MAX; t->columns++) {
        size_t n = strlen(name);
        t->right[t->columns] = n && name[n - 1] == '>';
        char *text = es_xstrdup(name);
        if (t->right[t->columns])
            text[n - 1] = 0;
        add(t, text);
    }
    va_end(ap);
}

void cl_table_cell(cl_table *t, const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    add(t, es_xstrdup(text));
}

void cl_table_end(cl_table *t, FILE *f)
{
    int width[CL_COLUMNS_MAX] = {0};
    for (int i = 0; i < t->cells; i++) {
        int n = (int)strlen(t->cell[i]), c = i % t->columns;
        width[c] = n > width[c] ? n : width[c];
    }
    for (int i = 0; i < t->cells; i++) {
        int c = i % t->columns;
        bool last = c == t->columns - 1;
        fprintf(f, "%*s%s", t->right[c] ? width[c] : last ? 0 : -width[c], t->cell[i], last ? "\n" : "  ");
        free(t->cell[i]);
    }
    free(t->cell);
    *t = (cl_table){0};
}

char *cl_count(int64_t n, char buf[32])
{
    static const char *const unit[] = {"", "k", "M", "G", "T"};
    double v = (double)n;
    int u = 0;
    while (v >= 1000 && u < 4) {
        v /= 1000;
        u++;
    }
    if (u == 0)
        snprintf(buf, 32, "%" PRId64, n);
    else
        snprintf(buf, 32, v < 10 ? "%.2f%s" : v < 100 ? "%.1f%s" : "%.0f%s", v, unit[u]);
    return buf;
}

char *cl_duration(double s, char buf[32])
{
    int64_t n = (int64_t)(s + 0.5);
    if (n < 60)
        snprintf(buf, 32, "%" PRId64 " s", n);
    else if (n < 3600)
        snprintf(buf, 32, "%" PRId64 " min %02" PRId64 " s", n / 60, n % 60);
    else if (n < 48 * 3600)
        snprintf(buf, 32, "%" PRId64 " h %02" PRId64 " min", n / 3600, n / 60 % 60);
    else
        snprintf(buf, 32, "%" PRId64 " days", n / 86400);
    return buf;
}
