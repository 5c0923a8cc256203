#include "supernet/table.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/str.h"

enum { COLUMNS_MAX = 256, KEY_COLUMNS_MAX = 64 };
static const size_t TABLE_BYTES_MAX = (size_t)1 << 30;

typedef struct row {
    es_id id;
    double value, report;
    int64_t line;
} row;

struct sn_table {
    const sn_space *space;
    char file[SN_PATH_MAX];
    row *rows; /* sorted by id */
    int64_t n;
    bool reports;
};

typedef struct parser {
    const sn_table_config *c;
    const sn_space *space;
    const char *p, *end;
    int64_t line;
    char *cell[COLUMNS_MAX]; /* into `text` */
    int cells;
    es_str text;
    int keys, key[KEY_COLUMNS_MAX], value, report;
    sr_arch *arch;
} parser;

static es_status parse_fail(parser *p, es_error *err, const char *fmt, ...) ES_PRINTF(3, 4);
static es_status parse_fail(parser *p, es_error *err, const char *fmt, ...)
{
    char where[128], text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(where, sizeof where, "%s:%" PRId64, p->c->file, p->line);
    return es_fail(err, ES_INVALID, where, "%s", text);
}

/* The next record into p->cell; false at the end. Quotes are as in RFC 4180; a record ends at the end of its line. */
static bool next_record(parser *p)
{
    size_t starts[COLUMNS_MAX];
    es_str_clear(&p->text);
    p->cells = 0;
    while (p->p < p->end && (*p->p == '\n' || *p->p == '\r')) {
        p->line += *p->p == '\n';
        p->p++;
    }
    if (p->p >= p->end)
        return false;
    p->line++;
    for (;;) {
        bool quoted = p->p < p->end && *p->p == '"';
        size_t start = p->text.len;
        p->p += quoted;
        while (p->p < p->end && *p->p != '\n' && (quoted || *p->p != ',')) {
            if (quoted && *p->p == '"') {
                if (p->p + 1 >= p->end || p->p[1] != '"') {
                    quoted = false;
                    p->p++;
                    continue;
                }
                p->p++;
            }
            es_str_addn(&p->text, p->p++, 1);
        }
        if (p->text.len > start && p->text.p[p->text.len - 1] == '\r' && (p->p >= p->end || *p->p == '\n'))
            p->text.p[--p->text.len] = 0;
        es_str_addn(&p->text, "", 1);
        if (p->cells < COLUMNS_MAX)
            starts[p->cells++] = start;
        if (p->p >= p->end || *p->p++ == '\n')
            break;
    }
    for (int i = 0; i < p->cells; i++)
        p->cell[i] = p->text.p + starts[i];
    return true;
}

static es_status find_column(parser *p, const char *field, const char *name, int *out, es_error *err)
{
    char known[300] = "";
    size_t n = 0;
    for (int i = 0; i < p->cells; i++)
        if (strcmp(p->cell[i], name) == 0) {
            *out = i;
            return ES_OK;
        }
    for (int i = 0; i < p->cells && n + strlen(p->cell[i]) + 3 < sizeof known; i++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", p->cell[i]);
    return parse_fail(p, err, "no column \"%s\" (task.%s); there are %s", name, field, known);
}

static es_status read_heading(parser *p, es_error *err)
{
    char keys[sizeof p->c->key], *save = NULL;
    if (!next_record(p))
        return parse_fail(p, err, "the table is empty: expected a heading line");
    snprintf(keys, sizeof keys, "%s", p->c->key);
    for (char *k = strtok_r(keys, ", ", &save); k; k = strtok_r(NULL, ", ", &save)) {
        if (p->keys == KEY_COLUMNS_MAX)
            return parse_fail(p, err, "more than %d columns in task.architecture", KEY_COLUMNS_MAX);
        ES_RETURN(find_column(p, "architecture", k, &p->key[p->keys++], err));
    }
    if (p->keys == 0)
        return parse_fail(p, err, "task.architecture names no column");
    ES_RETURN(find_column(p, "value", p->c->value, &p->value, err));
    p->report = p->value;
    if (p->c->report[0])
        ES_RETURN(find_column(p, "report", p->c->report, &p->report, err));
    return ES_OK;
}

static es_status read_cell(parser *p, int column, double *out, es_error *err)
{
    if (column >= p->cells)
        return parse_fail(p, err, "%d columns: column %d is missing", p->cells, column + 1);
    if (!es_str_to_double(p->cell[column], false, out) || !isfinite(*out))
        return parse_fail(p, err, "column %d: \"%.40s\" is no number", column + 1, p->cell[column]);
    return ES_OK;
}

static es_status read_row(parser *p, row *out, es_error *err)
{
    es_str key = ES_STR_INIT;
    es_status s;
    for (int i = 0; i < p->keys; i++) {
        if (p->key[i] >= p->cells)
            ES_GOTO(parse_fail(p, err, "%d columns: column %d is missing", p->cells, p->key[i] + 1));
        es_str_addf(&key, "%s%s", i ? "," : "", p->cell[p->key[i]]);
    }
    s = sn_arch_parse(p->space, key.p, p->arch, err);
    if (s != ES_OK) {
        char where[SN_PATH_MAX + 32];
        snprintf(where, sizeof where, "%s:%" PRId64, p->c->file, p->line);
        ES_GOTO(es_at(err, s, where));
    }
    sr_arch_id(sn_space_choices(p->space), p->arch, &out->id);
    out->line = p->line;
    ES_GOTO(read_cell(p, p->value, &out->value, err));
    ES_GOTO(read_cell(p, p->report, &out->report, err));
fail:
    es_str_free(&key);
    return s;
}

static int by_id(const void *a, const void *b)
{
    return memcmp(((const row *)a)->id.b, ((const row *)b)->id.b, ES_ID_BYTES);
}

static bool in_range(double v) { return v >= 0 && v <= 1; }

/* Scales, and refuses what is no accuracy then; p->line is where. */
static es_status percent_to_fraction(parser *p, sn_table *t, es_error *err)
{
    double most_value = 0, most_report = 0;
    for (int64_t i = 0; i < t->n; i++) {
        most_value = fmax(most_value, t->rows[i].value);
        most_report = fmax(most_report, t->rows[i].report);
    }
    for (int64_t i = 0; i < t->n; i++) {
        t->rows[i].value /= most_value > 1 ? 100 : 1;
        t->rows[i].report /= most_report > 1 ? 100 : 1;
        if (!in_range(t->rows[i].value) || !in_range(t->rows[i].report)) {
            p->line = t->rows[i].line;
            return parse_fail(p, err, "accuracies of %g and %g: expected 0 to 1, or percent", t->rows[i].value,
                              t->rows[i].report);
        }
    }
    return ES_OK;
}

es_status sn_table_parse(const sn_table_config *c, const sn_space *sp, const char *text, size_t n, sn_table **out,
                         es_error *err)
{
    parser p = {.c = c, .space = sp, .p = text, .end = text + n, .text = ES_STR_INIT};
    sn_table *t = es_xcalloc(1, sizeof *t);
    int64_t capacity = 0;
    es_status s;
    t->space = sp;
    snprintf(t->file, sizeof t->file, "%s", c->file);
    p.arch = sr_arch_new(sn_space_choices(sp));
    ES_GOTO(read_heading(&p, err));
    while (next_record(&p)) {
        if (t->n == capacity) {
            capacity = capacity ? 2 * capacity : 1024;
            t->rows = es_xrealloc(t->rows, (size_t)capacity * sizeof *t->rows);
        }
        ES_GOTO(read_row(&p, &t->rows[t->n], err));
        t->n++;
    }
    if (t->n == 0)
        ES_GOTO(parse_fail(&p, err, "no rows below the heading"));
    qsort(t->rows, (size_t)t->n, sizeof *t->rows, by_id);
    for (int64_t i = 1; i < t->n; i++)
        if (by_id(&t->rows[i - 1], &t->rows[i]) == 0) {
            int64_t a = t->rows[i - 1].line, b = t->rows[i].line;
            p.line = a > b ? a : b;
            ES_GOTO(parse_fail(&p, err, "the same architecture as in line %" PRId64, a < b ? a : b));
        }
    ES_GOTO(percent_to_fraction(&p, t, err));
    *out = t;
    t = NULL;
fail:
    sn_table_close(&t);
    es_str_free(&p.text);
    free(p.arch);
    return s;
}

es_status sn_table_open(const sn_table_config *c, const sn_space *sp, sn_table **out, es_error *err)
{
    char *text = NULL;
    size_t n = 0;
    es_status s;
    ES_GOTO(es_file_read(c->file, TABLE_BYTES_MAX, &text, &n, err));
    ES_GOTO(sn_table_parse(c, sp, text, n, out, err));
fail:
    free(text);
    return s;
}

void sn_table_close(sn_table **t)
{
    if (!*t)
        return;
    free((*t)->rows);
    free(*t);
    *t = NULL;
}

int64_t sn_table_rows(const sn_table *t) { return t->n; }

es_status sn_table_value(const sn_table *t, const sr_arch *a, sn_split split, double *out, es_error *err)
{
    row key;
    sr_arch_id(sn_space_choices(t->space), a, &key.id);
    const row *r = bsearch(&key, t->rows, (size_t)t->n, sizeof *t->rows, by_id);
    if (!r) {
        char *text = sn_arch_format(t->space, a);
        es_status s = es_fail(err, ES_NOT_FOUND, t->file, "no row for architecture %s", text);
        free(text);
        return s;
    }
    *out = split == SN_TEST_SPLIT ? r->report : r->value;
    return ES_OK;
}

es_status sn_table_evaluate(const sn_table *t, const sr_arch *a, sn_split split, sn_evaluation *out, es_error *err)
{
    double v = 0;
    ES_RETURN(sn_table_value(t, a, split, &v, err));
    if (v < 0 || v > 1)
        return es_fail(err, ES_INVALID, t->file, "accuracy %g: expected 0 to 1, or percent", v);
    *out = (sn_evaluation){.correct = (uint64_t)llround(v * SN_TABLE_SAMPLES), .samples = SN_TABLE_SAMPLES};
    return ES_OK;
}
