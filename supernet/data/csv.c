/* Numbers only: published image tables quote nothing. Two passes: count lines and columns, then read, so that memory is exact. */
#include "supernet/data/formats.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct csv {
    const char *name, *p, *end;
    int64_t line;
} csv;

/* The next line without its end; empty ones are skipped. */
static bool csv_line(csv *c, const char **from, const char **to)
{
    while (c->p < c->end) {
        const char *nl = memchr(c->p, '\n', (size_t)(c->end - c->p));
        const char *stop = nl ? nl : c->end;
        *from = c->p;
        *to = stop > c->p && stop[-1] == '\r' ? stop - 1 : stop;
        c->p = nl ? nl + 1 : c->end;
        c->line++;
        if (*to > *from)
            return true;
    }
    return false;
}

static int64_t csv_columns(const char *from, const char *to)
{
    int64_t n = 1;
    for (; from < to; from++)
        n += *from == ',';
    return n;
}

/* One cell as a finite number. */
static bool csv_number(const char *from, const char *to, float *out)
{
    char cell[64], *end;
    size_t n = (size_t)(to - from);
    if (n == 0 || n >= sizeof cell)
        return false;
    memcpy(cell, from, n);
    cell[n] = 0;
    *out = strtof(cell, &end);
    while (*end == ' ')
        end++;
    return *end == 0 && end != cell && isfinite(*out);
}

static const char *csv_cell_end(const char *from, const char *to)
{
    const char *comma = memchr(from, ',', (size_t)(to - from));
    return comma ? comma : to;
}

/* A first line whose first cell is no number is a heading; it may say where the label stands. */
static bool csv_heading(csv *c, int64_t *label_column)
{
    csv peek = *c;
    const char *from, *to, *stop;
    float v;
    if (!csv_line(&peek, &from, &to) || csv_number(from, csv_cell_end(from, to), &v))
        return false;
    *label_column = csv_columns(from, to) - 1;
    for (int64_t i = 0; from <= to; i++, from = stop + 1) {
        stop = csv_cell_end(from, to);
        if (stop - from == 5 && memcmp(from, "label", 5) == 0)
            *label_column = i;
        if (stop == to)
            break;
    }
    *c = peek;
    return true;
}

static es_status csv_row(csv *c, const char *from, const char *to, int64_t columns, int64_t label_column, int64_t row,
                         const sn_expect *e, sn_images *out, es_error *err)
{
    float *px = out->f32 + row * (columns - 1);
    for (int64_t i = 0; i < columns; i++) {
        const char *stop = csv_cell_end(from, to);
        float v;
        if (!csv_number(from, stop, &v))
            return es_fail(err, ES_INVALID, c->name, "line %" PRId64 ", column %" PRId64 ": \"%.*s\" is no number",
                           c->line, i + 1, (int)(stop - from > 32 ? 32 : stop - from), from);
        if (i != label_column) {
            *px++ = v;
        } else {
            if (v != floorf(v) || fabsf(v) > 1e6f)
                return es_fail(err, ES_INVALID, c->name, "line %" PRId64 ": label %g is no class number", c->line,
                               (double)v);
            ES_RETURN(sn_images_label(c->name, e, row, (int64_t)v, err));
            out->labels[row] = (int32_t)v;
        }
        from = stop + 1;
    }
    return ES_OK;
}

/* Pixels that are all whole numbers from 0 to 255 are kept as bytes: a quarter of the memory. */
static void csv_narrow(sn_images *im, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(im->f32[i] >= 0 && im->f32[i] <= 255 && im->f32[i] == floorf(im->f32[i])))
            return;
    uint8_t *u8 = malloc(n);
    if (!u8)
        return; /* the floats still serve */
    for (size_t i = 0; i < n; i++)
        u8[i] = (uint8_t)im->f32[i];
    free(im->f32);
    im->f32 = NULL;
    im->u8 = u8;
}

static es_status csv_square(const char *name, const sn_expect *e, int64_t pixels, sn_images *out, es_error *err)
{
    if (e->h && e->w && e->c) {
        if (pixels != (int64_t)e->h * e->w * e->c)
            return es_fail(err, ES_INVALID, name,
                           "%" PRId64 " pixels a line, but the space's input is %dx%dx%d (%" PRId64
                           " pixels and a label)",
                           pixels, e->h, e->w, e->c, (int64_t)e->h * e->w * e->c);
        out->h = e->h;
        out->w = e->w;
        out->c = e->c;
        return ES_OK;
    }
    int64_t side = (int64_t)llround(sqrt((double)pixels));
    out->h = out->w = (int)side;
    out->c = 1;
    if (side * side != pixels)
        return es_fail(err, ES_INVALID, name, "%" PRId64 " pixels a line are no square image", pixels);
    return sn_images_shape(name, e, side, side, 1, err);
}

es_status sn_csv_parse(const char *name, const char *text, size_t size, const sn_expect *e, sn_images *out,
                       es_error *err)
{
    csv c = {.name = name, .p = text, .end = text + size};
    const char *from, *to;
    int64_t label_column = -1, columns = 0, rows = 0, row = 0;
    es_status s;
    memset(out, 0, sizeof *out);
    bool heading = csv_heading(&c, &label_column);
    for (csv count = c; csv_line(&count, &from, &to); rows++) {
        int64_t k = csv_columns(from, to);
        columns = rows ? columns : k;
        if (k != columns)
            ES_GOTO(es_fail(err, ES_INVALID, name, "line %" PRId64 " has %" PRId64 " columns, the first has %" PRId64,
                            count.line, k, columns));
    }
    if (rows == 0 || columns < 2)
        ES_GOTO(es_fail(err, ES_INVALID, name, "no images: expected lines of pixels and a label, separated by commas"));
    if (!heading)
        label_column = columns - 1;
    else if (label_column >= columns)
        ES_GOTO(es_fail(err, ES_INVALID, name, "the heading has more columns than the lines below it"));
    ES_GOTO(csv_square(name, e, columns - 1, out, err));
    ES_GOTO(sn_images_alloc(name, (size_t)rows * (size_t)(columns - 1) * sizeof(float), &out->f32, err));
    ES_GOTO(sn_images_alloc(name, (size_t)rows * sizeof(int32_t), &out->labels, err));
    while (csv_line(&c, &from, &to))
        ES_GOTO(csv_row(&c, from, to, columns, label_column, row++, e, out, err));
    out->n = rows;
    csv_narrow(out, (size_t)rows * (size_t)(columns - 1));
fail:
    if (s != ES_OK)
        sn_images_free(out);
    return s;
}
