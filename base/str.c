#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

/* What an empty string points to; nothing writes to it, because cap is 0. */
char es_str_empty[1] = "";

void es_str_free(es_str *s)
{
    if (s->cap)
        free(s->p);
    *s = (es_str)ES_STR_INIT;
}

void es_str_clear(es_str *s)
{
    s->len = 0;
    if (s->cap)
        s->p[0] = '\0';
}

static void reserve(es_str *s, size_t more)
{
    size_t need = s->len + more + 1;
    if (need <= s->cap)
        return;
    size_t cap = s->cap ? s->cap * 2 : 64;
    while (cap < need)
        cap *= 2;
    s->p = es_xrealloc(s->cap ? s->p : NULL, cap);
    s->cap = cap;
}

void es_str_addn(es_str *s, const char *text, size_t n)
{
    reserve(s, n);
    memcpy(s->p + s->len, text, n);
    s->len += n;
    s->p[s->len] = '\0';
}

void es_str_add(es_str *s, const char *text) { es_str_addn(s, text, strlen(text)); }

void es_str_addf(es_str *s, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    ES_ASSERT(n >= 0);
    reserve(s, (size_t)n);
    vsnprintf(s->p + s->len, (size_t)n + 1, fmt, again);
    va_end(again);
    s->len += (size_t)n;
}

char *es_str_take(es_str *s)
{
    char *p = s->cap ? s->p : es_xstrdup("");
    *s = (es_str)ES_STR_INIT;
    return p;
}

/* Edit distance with insertion, deletion, replacement and swap of neighbours (Damerau), letters compared without case; words longer than
 * the table are far from everything. */
static int edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 63 };
    int d[3][LONGEST + 1];
    int n = (int)strlen(a), m = (int)strlen(b);
    if (n > LONGEST || m > LONGEST)
        return 2 * LONGEST;
    for (int j = 0; j <= m; j++)
        d[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *row = d[i % 3], *up = d[(i + 2) % 3], *up2 = d[(i + 1) % 3];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int ca = tolower((unsigned char)a[i - 1]), cb = tolower((unsigned char)b[j - 1]);
            int best = up[j - 1] + (ca != cb);
            best = up[j] + 1 < best ? up[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) && cb == tolower((unsigned char)a[i - 2]) &&
                up2[j - 2] + 1 < best)
                best = up2[j - 2] + 1;
            row[j] = best;
        }
    }
    return d[n % 3][m];
}

const char *es_str_closest(const char *word, const char *const *names)
{
    const char *best = NULL;
    int least = 0;
    for (; *names; names++) {
        int d = edit_distance(word, *names);
        /* Close: at most a third of the longer word is wrong, and at least one letter is right. */
        int longer = (int)strlen(strlen(word) > strlen(*names) ? word : *names);
        int allowed = longer <= 3 ? 1 : (longer + 2) / 3;
        if (d <= allowed && d < longer && (!best || d < least)) {
            best = *names;
            least = d;
        }
    }
    return best;
}

const char *es_str_double(double v, char buf[32])
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(buf, 32, "%.*g", digits, v);
        if (isnan(v) || strtod(buf, NULL) == v)
            break;
    }
    return buf;
}

/* The power of ten a suffix stands for; -1 when it is none. Counts of parameters and operations are meant, so k is 1000. */
static int suffix_power(const char *end)
{
    if (end[0] == '\0')
        return 0;
    if (end[1] != '\0')
        return -1;
    switch (end[0]) {
    case 'k':
    case 'K': return 3;
    case 'M': return 6;
    case 'G': return 9;
    default: return -1;
    }
}

bool es_str_to_double(const char *text, bool suffixes, double *out)
{
    /* strtod also takes leading blanks, hexadecimal, "inf" and "nan": none of these is a number a user writes. */
    const char *p = text + (*text == '-' || *text == '+');
    if (!isdigit((unsigned char)p[0]) && !(p[0] == '.' && isdigit((unsigned char)p[1])))
        return false;
    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X'))
        return false;
    char *end;
    double v = strtod(text, &end);
    int power = suffix_power(end);
    if (power < 0 || (power > 0 && !suffixes) || !isfinite(v))
        return false;
    static const double scale[] = {1, 1e3, 1e6, 1e9};
    v *= scale[power / 3];
    if (!isfinite(v))
        return false;
    *out = v;
    return true;
}

bool es_str_to_i64(const char *text, bool suffixes, int64_t *out)
{
    const char *p = text + (*text == '-' || *text == '+');
    if (!isdigit((unsigned char)p[0]))
        return false;
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (*end == '.' && suffixes) { /* 1.5M: exact when it is a whole number */
        double d;
        if (!es_str_to_double(text, true, &d) || suffix_power(text + strlen(text) - 1) <= 0 || d != floor(d) ||
            fabs(d) > 0x1p53)
            return false;
        *out = (int64_t)d;
        return true;
    }
    int power = suffix_power(end);
    if (errno == ERANGE || power < 0 || (power > 0 && !suffixes))
        return false;
    static const long long scale[] = {1, 1000, 1000000, 1000000000};
    if (__builtin_mul_overflow(v, scale[power / 3], &v))
        return false;
    *out = v;
    return true;
}
