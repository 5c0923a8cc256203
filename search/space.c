#include "search/space.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/str.h"

struct sr_space {
    int n;
    sr_choice choice[SR_CHOICES_MAX];
    es_arena *arena; /* names and labels */
};

sr_space *sr_space_new(void)
{
    sr_space *sp = es_xcalloc(1, sizeof *sp);
    sp->arena = es_arena_new(16 * 1024);
    return sp;
}

void sr_space_destroy(sr_space **sp)
{
    if (!*sp)
        return;
    es_arena_destroy(&(*sp)->arena);
    free(*sp);
    *sp = NULL;
}

int sr_space_add(sr_space *sp, const char *name, const char *const *labels, int options, int parent,
                 uint32_t parent_mask)
{
    ES_ASSERT(sp->n < SR_CHOICES_MAX && options >= 1 && options <= SR_OPTIONS_MAX && parent < sp->n);
    const char **copy = es_arena_alloc(sp->arena, (size_t)options * sizeof *copy);
    for (int i = 0; i < options; i++)
        copy[i] = es_arena_strdup(sp->arena, labels[i]);
    sp->choice[sp->n] = (sr_choice){.name = es_arena_strdup(sp->arena, name),
                                    .options = options,
                                    .labels = copy,
                                    .parent = parent,
                                    .parent_mask = parent_mask};
    return sp->n++;
}

int sr_space_choices(const sr_space *sp) { return sp->n; }

const sr_choice *sr_space_choice(const sr_space *sp, int i)
{
    ES_ASSERT(i >= 0 && i < sp->n);
    return &sp->choice[i];
}

/* The number of ways to fill choice i and everything below it. Children follow their parents, so one pass from the back suffices:
 * below[i][o] collects the product over the children present under option o. */
static void count_subtrees(const sr_space *sp, double (*below)[SR_OPTIONS_MAX], double *ways)
{
    for (int i = 0; i < sp->n; i++)
        for (int o = 0; o < SR_OPTIONS_MAX; o++)
            below[i][o] = 1;
    for (int i = sp->n - 1; i >= 0; i--) {
        const sr_choice *c = &sp->choice[i];
        ways[i] = 0;
        for (int o = 0; o < c->options; o++)
            ways[i] += below[i][o];
        if (c->parent < 0)
            continue;
        for (int o = 0; o < sp->choice[c->parent].options; o++)
            if (c->parent_mask >> o & 1)
                below[c->parent][o] *= ways[i];
    }
}

double sr_space_log10_size(const sr_space *sp)
{
    double(*below)[SR_OPTIONS_MAX] = es_xcalloc((size_t)sp->n + 1, sizeof *below);
    double *ways = es_xcalloc((size_t)sp->n + 1, sizeof *ways), sum = 0;
    count_subtrees(sp, below, ways);
    for (int i = 0; i < sp->n; i++)
        if (sp->choice[i].parent < 0)
            sum += log10(ways[i]);
    free(below);
    free(ways);
    return sum;
}

/* Exact counts, saturating at UINT64_MAX: counts[i][o] is the number of completions of choice i's subtree with option o. */
static uint64_t multiply(uint64_t a, uint64_t b)
{
    uint64_t r;
    return __builtin_mul_overflow(a, b, &r) ? UINT64_MAX : r;
}

static uint64_t exact_subtrees(const sr_space *sp, uint64_t (*below)[SR_OPTIONS_MAX], uint64_t *ways)
{
    uint64_t total = 1;
    for (int i = 0; i < sp->n; i++)
        for (int o = 0; o < SR_OPTIONS_MAX; o++)
            below[i][o] = 1;
    for (int i = sp->n - 1; i >= 0; i--) {
        const sr_choice *c = &sp->choice[i];
        ways[i] = 0;
        for (int o = 0; o < c->options; o++)
            if (__builtin_add_overflow(ways[i], below[i][o], &ways[i]))
                ways[i] = UINT64_MAX;
        if (c->parent < 0)
            total = multiply(total, ways[i]);
        else
            for (int o = 0; o < sp->choice[c->parent].options; o++)
                if (c->parent_mask >> o & 1)
                    below[c->parent][o] = multiply(below[c->parent][o], ways[i]);
    }
    return total;
}

bool sr_space_count(const sr_space *sp, uint64_t *out)
{
    uint64_t(*below)[SR_OPTIONS_MAX] = es_xcalloc((size_t)sp->n + 1, sizeof *below);
    uint64_t *ways = es_xcalloc((size_t)sp->n + 1, sizeof *ways);
    *out = exact_subtrees(sp, below, ways);
    free(below);
    free(ways);
    return *out < (uint64_t)1 << 63;
}

sr_arch *sr_arch_new(const sr_space *sp)
{
    sr_arch *a = es_xcalloc(1, sizeof *a + (size_t)sp->n);
    a->n = sp->n;
    return a;
}

/* Genes before `choice` must be canonical already: a parent that is absent has gene 0, so its own presence must be asked too. */
bool sr_arch_active(const sr_space *sp, const sr_arch *a, int choice)
{
    for (int i = choice; sp->choice[i].parent >= 0; i = sp->choice[i].parent)
        if (!(sp->choice[i].parent_mask >> a->gene[sp->choice[i].parent] & 1))
            return false;
    return true;
}

void sr_arch_canonicalise(const sr_space *sp, sr_arch *a)
{
    for (int i = 0; i < sp->n; i++)
        if (!sr_arch_active(sp, a, i))
            a->gene[i] = 0;
}

void sr_arch_random(const sr_space *sp, es_rng *r, sr_arch *out)
{
    for (int i = 0; i < sp->n; i++)
        out->gene[i] = sr_arch_active(sp, out, i) ? (uint8_t)es_rng_below(r, (uint32_t)sp->choice[i].options) : 0;
}

void sr_arch_smallest(const sr_space *sp, sr_arch *out) { memset(out->gene, 0, (size_t)sp->n); }

void sr_arch_largest(const sr_space *sp, sr_arch *out)
{
    for (int i = 0; i < sp->n; i++)
        out->gene[i] = (uint8_t)(sp->choice[i].options - 1);
    sr_arch_canonicalise(sp, out);
}

/* Another option of choice i, uniformly among the others. */
static uint8_t other_option(const sr_space *sp, es_rng *r, int i, uint8_t now)
{
    uint8_t pick = (uint8_t)es_rng_below(r, (uint32_t)sp->choice[i].options - 1);
    return pick < now ? pick : (uint8_t)(pick + 1);
}

void sr_arch_mutate(const sr_space *sp, es_rng *r, double per_gene, const sr_arch *from, sr_arch *out)
{
    int free_genes[SR_CHOICES_MAX], n = 0;
    bool changed = false;

    sr_arch_copy(out, from);
    for (int i = 0; i < sp->n; i++) {
        if (!sr_arch_active(sp, out, i)) {
            out->gene[i] = 0;
            continue;
        }
        /* A choice that the mutation just made present has no inherited option: it gets a random one. */
        if (!sr_arch_active(sp, from, i)) {
            out->gene[i] = (uint8_t)es_rng_below(r, (uint32_t)sp->choice[i].options);
            continue;
        }
        if (sp->choice[i].options < 2)
            continue;
        free_genes[n++] = i;
        if (es_rng_uniform_f64(r) < per_gene) {
            out->gene[i] = other_option(sp, r, i, from->gene[i]);
            changed = true;
        }
    }
    if (!changed && n > 0) {
        int i = free_genes[es_rng_below(r, (uint32_t)n)];
        out->gene[i] = other_option(sp, r, i, from->gene[i]);
        for (int j = i + 1; j < sp->n; j++)
            if (!sr_arch_active(sp, out, j))
                out->gene[j] = 0;
            else if (!sr_arch_active(sp, from, j))
                out->gene[j] = (uint8_t)es_rng_below(r, (uint32_t)sp->choice[j].options);
    }
}

void sr_arch_crossover(const sr_space *sp, es_rng *r, const sr_arch *a, const sr_arch *b, sr_arch *out)
{
    for (int i = 0; i < sp->n; i++) {
        const sr_arch *from = es_rng_u32(r) >> 31 ? a : b, *other = from == a ? b : a;
        /* Prefer the parent in which the choice is present: an absent gene says nothing. */
        if (!sr_arch_active(sp, from, i))
            from = other;
        out->gene[i] = sr_arch_active(sp, out, i) ? from->gene[i] : 0;
    }
}

void sr_arch_copy(sr_arch *to, const sr_arch *from)
{
    ES_ASSERT(to->n == from->n);
    memmove(to->gene, from->gene, (size_t)from->n);
}

bool sr_arch_equal(const sr_arch *a, const sr_arch *b)
{
    return a->n == b->n && memcmp(a->gene, b->gene, (size_t)a->n) == 0;
}

/* Mixed radix over present choices: the subtree of choice i with option o holds below[i][o] architectures. Roots are independent digits, the last root
 * running fastest; within a root, the option picks an interval and the rest is split among the children present under it. */
static void nth_subtree(const sr_space *sp, uint64_t (*below)[SR_OPTIONS_MAX], const uint64_t *ways, int i,
                        uint64_t index, sr_arch *out)
{
    int o = 0;
    while (index >= below[i][o])
        index -= below[i][o++];
    out->gene[i] = (uint8_t)o;
    for (int j = sp->n - 1; j > i; j--)
        if (sp->choice[j].parent == i && sp->choice[j].parent_mask >> o & 1) {
            nth_subtree(sp, below, ways, j, index % ways[j], out);
            index /= ways[j];
        }
}

bool sr_arch_nth(const sr_space *sp, uint64_t index, sr_arch *out)
{
    uint64_t(*below)[SR_OPTIONS_MAX] = es_xcalloc((size_t)sp->n + 1, sizeof *below);
    uint64_t *ways = es_xcalloc((size_t)sp->n + 1, sizeof *ways);
    uint64_t total = exact_subtrees(sp, below, ways);
    bool ok = index < total;

    memset(out->gene, 0, (size_t)sp->n);
    for (int i = sp->n - 1; ok && i >= 0; i--)
        if (sp->choice[i].parent < 0) {
            nth_subtree(sp, below, ways, i, index % ways[i], out);
            index /= ways[i];
        }
    free(below);
    free(ways);
    return ok;
}

char *sr_arch_text(const sr_space *sp, const sr_arch *a)
{
    es_str s = ES_STR_INIT;
    for (int i = 0; i < sp->n; i++) {
        if (!sr_arch_active(sp, a, i))
            continue;
        es_str_addf(&s, "%s%s=%s", s.len ? ";" : "", sp->choice[i].name, sp->choice[i].labels[a->gene[i]]);
    }
    return es_str_take(&s);
}

static int find_choice(const sr_space *sp, const char *name, size_t n)
{
    for (int i = 0; i < sp->n; i++)
        if (strlen(sp->choice[i].name) == n && memcmp(sp->choice[i].name, name, n) == 0)
            return i;
    return -1;
}

static int find_option(const sr_choice *c, const char *label, size_t n)
{
    for (int o = 0; o < c->options; o++)
        if (strlen(c->labels[o]) == n && memcmp(c->labels[o], label, n) == 0)
            return o;
    return -1;
}

static es_status parse_gene(const sr_space *sp, const char *p, size_t n, bool *seen, sr_arch *out, es_error *err)
{
    const char *eq = memchr(p, '=', n);
    if (!eq)
        return es_fail(err, ES_INVALID, "architecture", "\"%.*s\" is not of the form choice=option", (int)n, p);
    size_t name_n = (size_t)(eq - p), label_n = n - name_n - 1;
    int i = find_choice(sp, p, name_n);
    if (i < 0)
        return es_fail(err, ES_INVALID, "architecture", "the space has no choice \"%.*s\"", (int)name_n, p);
    if (seen[i])
        return es_fail(err, ES_INVALID, "architecture", "choice \"%s\" stands twice", sp->choice[i].name);
    int o = find_option(&sp->choice[i], eq + 1, label_n);
    if (o < 0) {
        es_str all = ES_STR_INIT;
        for (int k = 0; k < sp->choice[i].options; k++)
            es_str_addf(&all, "%s%s", k ? ", " : "", sp->choice[i].labels[k]);
        es_fail(err, ES_INVALID, "architecture", "choice \"%s\" has no option \"%.*s\"; its options are %s",
                sp->choice[i].name, (int)label_n, eq + 1, all.p);
        es_str_free(&all);
        return ES_INVALID;
    }
    seen[i] = true;
    out->gene[i] = (uint8_t)o;
    return ES_OK;
}

es_status sr_arch_parse(const sr_space *sp, const char *text, sr_arch *out, es_error *err)
{
    bool seen[SR_CHOICES_MAX] = {false};

    ES_ASSERT(out->n == sp->n);
    memset(out->gene, 0, (size_t)sp->n);
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, ";");
        ES_RETURN(parse_gene(sp, p, n, seen, out, err));
        p += n + (p[n] == ';');
    }
    for (int i = 0; i < sp->n; i++) {
        bool active = sr_arch_active(sp, out, i);
        if (active && !seen[i] && sp->choice[i].options > 1)
            return es_fail(err, ES_INVALID, "architecture", "choice \"%s\" is missing", sp->choice[i].name);
        if (!active && seen[i])
            return es_fail(err, ES_INVALID, "architecture", "choice \"%s\" is not present under %s=%s",
                           sp->choice[i].name, sp->choice[sp->choice[i].parent].name,
                           sp->choice[sp->choice[i].parent].labels[out->gene[sp->choice[i].parent]]);
    }
    return ES_OK;
}

void sr_arch_id(const sr_space *sp, const sr_arch *a, es_id *out)
{
    char *text = sr_arch_text(sp, a);
    es_id_bytes(text, strlen(text), out);
    free(text);
}
