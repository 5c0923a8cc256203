/* The columns of a published table, joined by commas. Each column is a pattern of field names: "{a..b}" counts, several patterns are separated by spaces, and the labels of
 * one column are joined by `join`: with join "" stages.{1..2}.blocks.{0..1}.kernel gives "3537". Layers that an architecture does not have are written with their smallest
 * option, and read as anything the field allows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supernet/space/notation.h"

#define COLUMN_ENDS ",;/:|\t"

/* Calls visit for every name that the pattern stands for. */
static es_status expand(const sn_space *sp, const char *pattern, size_t n,
                        es_status (*visit)(void *ctx, const sn_named *f, es_error *err), void *ctx, es_error *err)
{
    char name[128];
    const char *open = memchr(pattern, '{', n);
    if (!open) {
        snprintf(name, sizeof name, "%.*s", (int)n, pattern);
        const sn_named *f = sn_template_find(sp, name);
        return f ? visit(ctx, f, err) : es_fail(err, ES_INVALID, "notation.columns", "the space has no field %s", name);
    }
    int from, to, used = 0;
    if (n > 96 || sscanf(open, "{%d..%d}%n", &from, &to, &used) != 2 || used == 0 || from < 0 || to < from || to > 999)
        return es_fail(err, ES_INVALID, "notation.columns", "expected {from..to} in %.*s", (int)n, pattern);
    for (int i = from; i <= to; i++) {
        const char *rest = open + used;
        int len = snprintf(name, sizeof name, "%.*s%d%.*s", (int)(open - pattern), pattern, i,
                           (int)(pattern + n - rest), rest);
        ES_RETURN(expand(sp, name, (size_t)len, visit, ctx, err));
    }
    return ES_OK;
}

static es_status each_field(const sn_space *sp, const char *column,
                            es_status (*visit)(void *ctx, const sn_named *f, es_error *err), void *ctx, es_error *err)
{
    while (*column) {
        size_t n = strcspn(column, " ");
        if (n > 0)
            ES_RETURN(expand(sp, column, n, visit, ctx, err));
        column += n + (column[n] == ' ');
    }
    return ES_OK;
}

static es_status count_field(void *ctx, const sn_named *f, es_error *err)
{
    (void)f, (void)err;
    ++*(int *)ctx;
    return ES_OK;
}

typedef struct checker {
    bool letters;     /* options must be of one letter */
    const char *join; /* whose characters no option may have; "" for a column of one field */
    bool seen[SR_CHOICES_MAX];
} checker;

static es_status check_field(void *ctx, const sn_named *f, es_error *err)
{
    checker *c = ctx;
    if (f->field.gene >= 0)
        c->seen[f->field.gene] = true;
    for (int i = 0; c->letters && i < f->field.n; i++)
        if (strlen(f->labels[i]) != 1)
            return es_fail(
                err, ES_INVALID, "notation.columns",
                "%s has the option %s, of more than one letter, beside others in its column: that needs `join`",
                f->name, f->labels[i]);
    for (int i = 0; i < f->field.n; i++)
        if (strpbrk(f->labels[i], c->join))
            return es_fail(err, ES_INVALID, "notation.join", "\"%s\" has a character of %s's option %s", c->join,
                           f->name, f->labels[i]);
    return ES_OK;
}

static es_status check(const sn_space *sp, es_error *err)
{
    checker c = {0};
    const char *join = sp->spec->join;
    if (strpbrk(join, COLUMN_ENDS "\n\r"))
        return es_fail(err, ES_INVALID, "notation.join",
                       "may have none of , ; / : | tab and line end: they end columns");
    for (int i = 0; i < sp->spec->columns; i++) {
        int fields = 0;
        ES_RETURN(each_field(sp, sp->spec->column[i], count_field, &fields, err));
        c.letters = fields > 1 && !join[0];
        c.join = fields > 1 ? join : "";
        ES_RETURN(each_field(sp, sp->spec->column[i], check_field, &c, err));
    }
    for (int i = 0; i < sr_space_choices(sp->choices); i++)
        if (!c.seen[i])
            return es_fail(err, ES_INVALID, "notation.columns", "no column has %s",
                           sr_space_choice(sp->choices, i)->name);
    return ES_OK;
}

typedef struct writer {
    const sn_space *sp;
    const sr_arch *a;
    es_str *out;
    bool first;
} writer;

static es_status write_field(void *ctx, const sn_named *f, es_error *err)
{
    (void)err;
    writer *w = ctx;
    if (!w->first)
        es_str_add(w->out, w->sp->spec->join);
    w->first = false;
    es_str_add(w->out, sn_notation_label(f, w->a));
    return ES_OK;
}

static void format(const sn_space *sp, const sr_arch *a, es_str *out)
{
    for (int i = 0; i < sp->spec->columns; i++) {
        writer w = {sp, a, out, true};
        if (i > 0)
            es_str_add(out, ",");
        es_status s = each_field(sp, sp->spec->column[i], write_field, &w, NULL);
        ES_ASSERT(s == ES_OK); /* checked when the space was read */
    }
}

typedef struct reader {
    const sn_space *sp;
    sr_arch *out;
    const char *at;
    size_t left;
    int column, fields;
} reader;

static es_status read_field(void *ctx, const sn_named *f, es_error *err)
{
    reader *r = ctx;
    size_t n = r->left, join = strlen(r->sp->spec->join);
    if (join > 0) {
        const char *end = memmem(r->at, r->left, r->sp->spec->join, join);
        n = end ? (size_t)(end - r->at) : r->left;
    } else if (r->fields > 1)
        n = r->left > 0;
    if (n == 0)
        return es_fail(err, ES_INVALID, NULL, "column %d ends before %s", r->column + 1, f->name);
    ES_RETURN(sn_notation_set(f, r->at, n, r->out, err));
    r->at += n;
    r->left -= n;
    if (join > 0 && r->left > 0) {
        r->at += join;
        r->left -= join;
    }
    return ES_OK;
}

static es_status count_choice(void *ctx, const sn_named *f, es_error *err)
{
    (void)err;
    *(int *)ctx += f->field.n > 1;
    return ES_OK;
}

/* Columns that no architecture changes may be left out at the end. */
static es_status check_rest(const sn_space *sp, int given, es_error *err)
{
    int choices = 0;
    for (int i = given; i < sp->spec->columns; i++)
        ES_RETURN(each_field(sp, sp->spec->column[i], count_choice, &choices, err));
    return choices
               ? es_fail(err, ES_INVALID, NULL, "%d columns; expected %d, joined by commas", given, sp->spec->columns)
               : ES_OK;
}

static es_status parse(const sn_space *sp, const char *text, sr_arch *out, es_error *err)
{
    for (int i = 0; i < sp->spec->columns; i++) {
        text += strspn(text, " ");
        size_t n = strcspn(text, COLUMN_ENDS);
        reader r = {sp, out, text, n, i, 0};
        while (r.left > 0 && text[r.left - 1] == ' ')
            r.left--;
        ES_RETURN(each_field(sp, sp->spec->column[i], count_field, &r.fields, err));
        ES_RETURN(each_field(sp, sp->spec->column[i], read_field, &r, err));
        if (r.left > 0)
            return es_fail(err, ES_INVALID, NULL, "column %d has more than its %d values: %.*s", i + 1, r.fields,
                           (int)r.left, r.at);
        text += n;
        if (!*text)
            return check_rest(sp, i + 1, err);
        text++;
    }
    return es_fail(err, ES_INVALID, NULL, "more than %d columns", sp->spec->columns);
}

const sn_notation sn_notation_columns = {.name = "columns", .check = check, .format = format, .parse = parse};
