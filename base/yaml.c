/* The reader (libyaml's events to a tree with places) is here; reading values out of the tree is in yaml_get.c. */
#include "base/yaml.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/arena.h"
#include "base/file.h"

enum { MAX_BYTES = 1 << 20, MAX_DEPTH = 32, MAX_NODES = 100000, MAX_FIELDS = 1000 };

struct es_yaml {
    es_arena *arena;
    const char *name;
    const es_yaml_node *root;
    size_t nodes;
};

/* A container being read. Children are collected in a list and become an array when it ends. */
typedef struct child child;
struct child {
    child *next;
    const char *key;
    es_yaml_node *node;
};

typedef struct level {
    es_yaml_node *node;
    child *first, **last;
    const char *key; /* of a map: the key read, waiting for its value */
    yaml_mark_t key_mark;
} level;

typedef struct reader {
    es_yaml *doc;
    level stack[MAX_DEPTH + 1];
    int depth;
    es_error *err;
} reader;

static es_status fail_mark(reader *r, const yaml_mark_t *m, const char *what)
{
    char where[sizeof r->err->where];
    snprintf(where, sizeof where, "%s:%zu:%zu", r->doc->name, m->line + 1, m->column + 1);
    return es_fail(r->err, ES_INVALID, where, "%s", what);
}

/* The path of the next value: its parent's and the key, or the index. */
static const char *next_path(reader *r)
{
    if (r->depth == 0)
        return "";
    level *top = &r->stack[r->depth];
    const char *base = top->node->path;
    if (top->node->kind == ES_YAML_LIST)
        return es_arena_printf(r->doc->arena, "%s[%zu]", base, top->node->count);
    return base[0] ? es_arena_printf(r->doc->arena, "%s.%s", base, top->key) : top->key;
}

static es_status new_node(reader *r, es_yaml_kind kind, const yaml_event_t *e, es_yaml_node **out)
{
    es_yaml *d = r->doc;
    if (++d->nodes > MAX_NODES)
        return fail_mark(r, &e->start_mark, "the document has more than 100000 values");
    es_yaml_node *n = es_arena_alloc(d->arena, sizeof *n);
    n->kind = kind;
    n->line = (int)e->start_mark.line + 1;
    n->column = (int)e->start_mark.column + 1;
    n->key_line = n->line;
    n->key_column = n->column;
    n->doc = d;
    n->path = next_path(r);
    if (r->depth == 0) {
        d->root = n;
    } else {
        level *top = &r->stack[r->depth];
        child *c = es_arena_alloc(d->arena, sizeof *c);
        c->key = top->key;
        c->node = n;
        if (top->key) {
            n->key_line = (int)top->key_mark.line + 1;
            n->key_column = (int)top->key_mark.column + 1;
        }
        *top->last = c;
        top->last = &c->next;
        top->node->count++;
        top->key = NULL;
    }
    *out = n;
    return ES_OK;
}

static es_status take_key(reader *r, const yaml_event_t *e)
{
    level *top = &r->stack[r->depth];
    const char *key = (const char *)e->data.scalar.value;
    if (strlen(key) != e->data.scalar.length || key[0] == '\0')
        return fail_mark(r, &e->start_mark, "a field name may not be empty or hold a zero byte");
    if (top->node->count >= MAX_FIELDS) /* also bounds the search below */
        return fail_mark(r, &e->start_mark, "a map has more than 1000 fields");
    for (child *c = top->first; c; c = c->next)
        if (strcmp(c->key, key) == 0) {
            char what[256];
            snprintf(what, sizeof what, "the field \"%.100s\" is given twice, first in line %d", key,
                     c->node->key_line);
            return fail_mark(r, &e->start_mark, what);
        }
    top->key = es_arena_strdup(r->doc->arena, key);
    top->key_mark = e->start_mark;
    return ES_OK;
}

static es_status take_scalar(reader *r, const yaml_event_t *e)
{
    level *top = &r->stack[r->depth];
    if (r->depth > 0 && top->node->kind == ES_YAML_MAP && !top->key)
        return take_key(r, e);
    if (strlen((const char *)e->data.scalar.value) != e->data.scalar.length)
        return fail_mark(r, &e->start_mark, "a text may not hold a zero byte");
    es_yaml_node *n;
    ES_RETURN(new_node(r, ES_YAML_SCALAR, e, &n));
    n->text = es_arena_strdup(r->doc->arena, (const char *)e->data.scalar.value);
    n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return ES_OK;
}

static es_status take_start(reader *r, const yaml_event_t *e, es_yaml_kind kind)
{
    level *top = &r->stack[r->depth];
    if (r->depth > 0 && top->node->kind == ES_YAML_MAP && !top->key)
        return fail_mark(r, &e->start_mark, "a field name must be a word, not a list or map");
    if (r->depth == MAX_DEPTH)
        return fail_mark(r, &e->start_mark, "lists and maps are nested more than 32 deep");
    es_yaml_node *n;
    ES_RETURN(new_node(r, kind, e, &n));
    r->depth++;
    top = &r->stack[r->depth];
    memset(top, 0, sizeof *top);
    top->node = n;
    top->last = &top->first;
    return ES_OK;
}

static void take_end(reader *r)
{
    level *top = &r->stack[r->depth--];
    es_yaml_node *n = top->node;
    const es_yaml_node **items = es_arena_alloc(r->doc->arena, (n->count + 1) * sizeof *items);
    const char **keys = es_arena_alloc(r->doc->arena, (n->count + 1) * sizeof *keys);
    size_t i = 0;
    for (child *c = top->first; c; c = c->next, i++) {
        items[i] = c->node;
        keys[i] = c->key;
    }
    n->items = items;
    if (n->kind == ES_YAML_MAP)
        n->keys = keys;
}

/* Anchors are refused with aliases: an anchor nobody may use is a mistake too. Tags would change the meaning of a value. */
static es_status refuse_anchor(reader *r, const yaml_event_t *e, const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor)
        return fail_mark(r, &e->start_mark, "anchors (&name) are not supported, write the value out");
    if (tag)
        return fail_mark(r, &e->start_mark, "tags (!name) are not supported");
    return ES_OK;
}

static es_status take_event(reader *r, const yaml_event_t *e, int *documents)
{
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++*documents > 1)
            return fail_mark(r, &e->start_mark, "a second document starts here, one is allowed");
        return ES_OK;
    case YAML_ALIAS_EVENT:
        return fail_mark(r, &e->start_mark, "aliases (*name) are not supported, write the value out");
    case YAML_SCALAR_EVENT:
        ES_RETURN(refuse_anchor(r, e, e->data.scalar.anchor, e->data.scalar.tag));
        return take_scalar(r, e);
    case YAML_SEQUENCE_START_EVENT:
        ES_RETURN(refuse_anchor(r, e, e->data.sequence_start.anchor, e->data.sequence_start.tag));
        return take_start(r, e, ES_YAML_LIST);
    case YAML_MAPPING_START_EVENT:
        ES_RETURN(refuse_anchor(r, e, e->data.mapping_start.anchor, e->data.mapping_start.tag));
        return take_start(r, e, ES_YAML_MAP);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: take_end(r); return ES_OK;
    default: return ES_OK; /* stream start, document end */
    }
}

static es_status fail_syntax(reader *r, const yaml_parser_t *p)
{
    yaml_mark_t at = p->problem_mark;
    if (p->error == YAML_READER_ERROR) { /* it gives a byte offset instead of a mark */
        at = p->mark;
        return fail_mark(r, &at, "the text is not valid UTF-8 or holds a control character");
    }
    char what[300];
    snprintf(what, sizeof what, "not valid YAML: %s%s%s", p->problem ? p->problem : "syntax error",
             p->context ? " " : "", p->context ? p->context : "");
    return fail_mark(r, &at, what);
}

static es_status read_events(reader *r, yaml_parser_t *p)
{
    int documents = 0;
    for (bool end = false; !end;) {
        yaml_event_t e;
        if (!yaml_parser_parse(p, &e))
            return p->error == YAML_MEMORY_ERROR ? es_fail(r->err, ES_NO_MEMORY, r->doc->name, "no memory to read it")
                                                 : fail_syntax(r, p);
        end = e.type == YAML_STREAM_END_EVENT;
        es_status s = take_event(r, &e, &documents);
        yaml_event_delete(&e);
        if (s != ES_OK)
            return s;
    }
    if (!r->doc->root)
        return es_fail(r->err, ES_INVALID, r->doc->name, "the file is empty");
    return ES_OK;
}

es_status es_yaml_parse(const char *name, const char *text, size_t n, es_yaml **out, es_error *err)
{
    es_status s = ES_OK;
    es_error local; /* so that messages can be written without asking */
    reader r = {.err = err ? err : &local};
    yaml_parser_t p;
    if (n > MAX_BYTES)
        return es_fail(err, ES_INVALID, name, "the text is %zu bytes, at most %d are allowed", n, MAX_BYTES);
    if (!yaml_parser_initialize(&p))
        return es_fail(err, ES_NO_MEMORY, name, "no memory to read it");
    r.doc = es_xcalloc(1, sizeof *r.doc);
    r.doc->arena = es_arena_new(16 * 1024);
    r.doc->name = es_arena_strdup(r.doc->arena, name);
    yaml_parser_set_input_string(&p, (const unsigned char *)text, n);
    ES_GOTO(read_events(&r, &p));
    *out = r.doc;
    r.doc = NULL;
fail:
    yaml_parser_delete(&p);
    es_yaml_destroy(&r.doc);
    return s;
}

es_status es_yaml_read(const char *path, es_yaml **out, es_error *err)
{
    char *text = NULL;
    size_t n = 0;
    ES_RETURN(es_file_read(path, MAX_BYTES, &text, &n, err));
    es_status s = es_yaml_parse(path, text, n, out, err);
    free(text);
    return s;
}

void es_yaml_destroy(es_yaml **doc)
{
    if (!*doc)
        return;
    es_arena_destroy(&(*doc)->arena);
    free(*doc);
    *doc = NULL;
}

const es_yaml_node *es_yaml_root(const es_yaml *doc) { return doc->root; }

const char *es_yaml_name(const es_yaml *doc) { return doc->name; }
