/* The default: sections joined by '+', inside a section "letter + options" joined by ':', options of the layers joined by '.'.
 *
 *     r192+stem:w16+0:d2:w24:k3.5:e4.6+1:d1:w40:k3:e3+head:w256          stages by their number, only what is a choice and present
 *     normal:1-0~skip_connect:2-0~none                                   edges of a cell, target-source
 *
 * No comma, space or shell character: it fits into CSV, file names and command lines. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supernet/space/notation.h"

enum { KEY = 80 };

/* Section and item of a choice: "stages.0.blocks.1.kernel" -> "0", "k"; "cells.normal.1.0" -> "normal", "1-0~"; "resolution" -> "", "r". */
static void key_of(const char *name, char section[KEY], char item[KEY])
{
    const char *last = strrchr(name, '.');
    section[0] = 0;
    if (!last) {
        snprintf(item, KEY, "%c", name[0]);
    } else if (strncmp(name, "cells.", 6) == 0) {
        const char *dot = strchr(name + 6, '.');
        snprintf(section, KEY, "%.*s", (int)(dot - name - 6), name + 6);
        snprintf(item, KEY, "%.*s-%s~", (int)(last - dot - 1), dot + 1, last + 1);
    } else {
        const char *start = strncmp(name, "stages.", 7) == 0 ? name + 7 : name;
        snprintf(section, KEY, "%.*s", (int)strcspn(start, "."), start);
        snprintf(item, KEY, "%c", last[1]);
    }
}

void sn_template_keys(sn_space *sp)
{
    int n = sr_space_choices(sp->choices);
    sp->key = es_arena_alloc(sp->arena, (size_t)(n + 1) * sizeof *sp->key);
    for (int i = 0; i < n; i++) {
        char section[KEY], item[KEY];
        sn_key *k = &sp->key[i];
        key_of(sr_space_choice(sp->choices, i)->name, section, item);
        k->first = i;
        for (int j = i - 1; j >= 0; j--)
            if (strcmp(sp->key[j].section, section) == 0 && strcmp(sp->key[j].item, item) == 0)
                k->first = j;
        k->section = k->first == i ? es_arena_strdup(sp->arena, section) : sp->key[k->first].section;
        k->item = k->first == i ? es_arena_strdup(sp->arena, item) : sp->key[k->first].item;
    }
}

static es_status check(const sn_space *sp, es_error *err)
{
    (void)sp, (void)err;
    return ES_OK;
}

/* The options of all choices that share the keys of choice `first`: one of them per layer that is present. */
static void format_item(const sn_space *sp, const sr_arch *a, int first, const char **at_section, es_str *out)
{
    const char *section = sp->key[first].section;
    bool some = false;
    for (int j = first; j < sr_space_choices(sp->choices); j++) {
        if (sp->key[j].first != first || !sr_arch_active(sp->choices, a, j))
            continue;
        if (!some) {
            if (out->len == 0 || strcmp(*at_section, section) != 0)
                es_str_addf(out, "%s%s%s", out->len ? "+" : "", section, section[0] ? ":" : "");
            else
                es_str_add(out, ":");
            *at_section = section;
            es_str_add(out, sp->key[first].item);
        }
        es_str_add(out, some ? "." : "");
        es_str_add(out, sr_space_choice(sp->choices, j)->labels[a->gene[j]]);
        some = true;
    }
}

static void format(const sn_space *sp, const sr_arch *a, es_str *out)
{
    const char *at_section = "";
    for (int i = 0; i < sr_space_choices(sp->choices); i++)
        if (sp->key[i].first == i)
            format_item(sp, a, i, &at_section, out);
    if (out->len == 0)
        es_str_add(out, "fixed"); /* a space of one architecture */
}

/* Finds "section: ... item" in the text: the options after the item. */
static bool find_item(const char *text, const char *section, const char *item, const char **at, size_t *n)
{
    for (const char *sec = text; *sec;) {
        size_t len = strcspn(sec, "+"), name = strcspn(sec, ":+");
        const char *p = sec, *end = sec + len;
        bool here = section[0] ? name < len && strlen(section) == name && strncmp(sec, section, name) == 0 : true;
        if (section[0])
            p = sec + name + 1;
        while (here && p < end) {
            size_t w = strcspn(p, ":+"), skip = strlen(item);
            if (w > skip && strncmp(p, item, skip) == 0 && (skip > 1 || section[0] || isdigit((unsigned char)p[1]))) {
                *at = p + skip;
                *n = w - skip;
                return true;
            }
            p += w + 1;
        }
        sec = *end ? end + 1 : end;
    }
    return false;
}

static es_status parse_item(const sn_space *sp, int first, const char *text, sr_arch *out, es_error *err)
{
    const char *section = sp->key[first].section, *item = sp->key[first].item, *at = NULL;
    size_t n = 0;
    bool found = find_item(text, section, item, &at, &n);
    const char *end = found ? at + n : NULL;
    for (int j = first; j < sr_space_choices(sp->choices); j++) {
        if (sp->key[j].first != first || !sr_arch_active(sp->choices, out, j))
            continue;
        const char *name = sr_space_choice(sp->choices, j)->name;
        if (!found || at >= end)
            return es_fail(err, ES_INVALID, NULL, "%s is missing: expected %s%s%s...", name, section,
                           section[0] ? ":" : "", item);
        size_t w = strcspn(at, ".:+");
        ES_RETURN(sn_notation_set(sn_template_find(sp, name), at, w, out, err));
        at += w + (at + w < end && at[w] == '.');
    }
    if (found && at < end)
        return es_fail(err, ES_INVALID, NULL, "%s%s%s has more options than the architecture has layers", section,
                       section[0] ? ":" : "", item);
    return ES_OK;
}

static es_status parse(const sn_space *sp, const char *text, sr_arch *out, es_error *err)
{
    if (sr_space_choices(sp->choices) == 0)
        return strcmp(text, "fixed") == 0
                   ? ES_OK
                   : es_fail(err, ES_INVALID, NULL, "this space has one architecture, written `fixed`");
    for (int i = 0; i < sr_space_choices(sp->choices); i++)
        if (sp->key[i].first == i)
            ES_RETURN(parse_item(sp, i, text, out, err));
    /* Everything that was written must have been read: the canonical text of the result is what was given, in any order. */
    es_str canonical = ES_STR_INIT;
    format(sp, out, &canonical);
    bool whole = canonical.len == strlen(text);
    es_str_free(&canonical);
    return whole
               ? ES_OK
               : es_fail(err, ES_INVALID, NULL,
                         "%s has something that is no choice of this space, twice the same, or a layer that is absent",
                         text);
}

const sn_notation sn_notation_compact = {.name = "compact", .check = check, .format = format, .parse = parse};
