#include "supernet/space/space.h"

#include <stdlib.h>
#include <string.h>

#include "supernet/space/notation.h"
#include "supernet/space/walk.h"

/* To add a notation: its file, its line in notation.h, its line here. */
static const sn_notation *const notations[] = {&sn_notation_compact, &sn_notation_columns, &sn_notation_nas_bench_201};

static const sn_notation *notation_of(const sn_space *sp)
{
    for (size_t i = 0; i < sizeof notations / sizeof notations[0]; i++)
        if (strcmp(notations[i]->name, sp->spec->notation) == 0)
            return notations[i];
    return notations[0];
}

es_status sn_space_read(const es_yaml_node *node, sn_space **out, es_error *err)
{
    sn_spec *spec = NULL;
    *out = NULL;
    ES_RETURN(sn_spec_read(node, &spec, err));
    ES_RETURN(sn_template_build(spec, NULL, NULL, out, err));
    es_error why = {0};
    es_status s = notation_of(*out)->check(*out, &why);
    if (s != ES_OK) {
        const es_yaml_node *n = es_yaml_find(node, "notation");
        s = es_yaml_fail(n ? n : node, err, "%s", why.text);
        sn_space_destroy(out);
    }
    return s;
}

es_status sn_space_load(const char *path, sn_space **out, es_error *err)
{
    es_yaml *doc = NULL;
    *out = NULL;
    ES_RETURN(es_yaml_read(path, &doc, err));
    const es_yaml_node *root = es_yaml_root(doc), *inner = es_yaml_find(root, "space");
    es_status s = sn_space_read(inner ? inner : root, out, err);
    es_yaml_destroy(&doc);
    return s;
}

void sn_space_destroy(sn_space **sp)
{
    if (!*sp)
        return;
    es_arena *arena = (*sp)->arena;
    sn_spec_release(&(*sp)->spec);
    sr_space_destroy(&(*sp)->choices);
    es_arena_destroy(&arena);
    *sp = NULL;
}

es_status sn_space_fix(const sn_space *sp, const sr_arch *a, sn_space **out, es_error *err)
{
    sn_spec *spec = sp->spec;
    atomic_fetch_add(&spec->users, 1);
    return sn_template_build(spec, sp, a, out, err);
}

const sr_space *sn_space_choices(const sn_space *sp) { return sp->choices; }

void sn_space_input(const sn_space *sp, int *height, int *width, int *channels)
{
    *height = sp->spec->height;
    *width = sp->spec->width;
    *channels = sp->spec->channels;
}

int sn_space_classes(const sn_space *sp) { return sp->spec->stage[sp->spec->stages - 1].o.classes; }

bool sn_space_tokens(const sn_space *sp) { return sp->spec->vocabulary > 0; }
int sn_space_positions(const sn_space *sp) { return sn_space_tokens(sp) ? sp->spec->width : 1; }

const char *sn_notation_label(const sn_named *f, const sr_arch *a)
{
    return f->labels[f->field.gene < 0 ? 0 : a->gene[f->field.gene]];
}

es_status sn_notation_set(const sn_named *f, const char *text, size_t n, sr_arch *out, es_error *err)
{
    es_str allowed = ES_STR_INIT;
    for (int i = 0; i < f->field.n; i++) {
        if (strlen(f->labels[i]) == n && strncmp(f->labels[i], text, n) == 0) {
            if (f->field.gene >= 0)
                out->gene[f->field.gene] = (uint8_t)i;
            es_str_free(&allowed);
            return ES_OK;
        }
        es_str_addf(&allowed, "%s%s", i ? ", " : "", f->labels[i]);
    }
    es_status s = es_fail(err, ES_INVALID, NULL, "%s cannot be '%.*s'; allowed: %s", f->name, (int)(n > 64 ? 64 : n),
                          text, allowed.p);
    es_str_free(&allowed);
    return s;
}

char *sn_arch_format(const sn_space *sp, const sr_arch *a)
{
    es_str s = ES_STR_INIT;
    ES_ASSERT(a->n == sr_space_choices(sp->choices));
    notation_of(sp)->format(sp, a, &s);
    return es_str_take(&s);
}

es_status sn_arch_parse(const sn_space *sp, const char *text, sr_arch *out, es_error *err)
{
    memset(out->gene, 0, (size_t)out->n);
    if (strcmp(text, "smallest") == 0) {
        sr_arch_smallest(sp->choices, out);
        return ES_OK;
    }
    if (strcmp(text, "largest") == 0) {
        sr_arch_largest(sp->choices, out);
        return ES_OK;
    }
    /* A published notation may say something about absent layers: read, then made canonical. search/'s own text "choice=option;..." is always understood. */
    const sn_notation *n = notation_of(sp);
    es_status s = strchr(text, '=') ? sr_arch_parse(sp->choices, text, out, err) : n->parse(sp, text, out, err);
    if (s == ES_OK)
        sr_arch_canonicalise(sp->choices, out);
    else if (err)
        es_at(err, s, "architecture");
    return s;
}
