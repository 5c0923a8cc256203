#include "daemon/wire/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

enum { KEY_FILE_MAX = 16 << 10, PATH_BYTES = 1024 };

static const char *const role_names[] = {
    [DM_ROLE_NONE] = "none",   [DM_ROLE_CLIENT] = "client", [DM_ROLE_WORKER] = "worker",
    [DM_ROLE_ADMIN] = "admin", [DM_ROLE_SERVER] = "server",
};

const char *dm_role_name(dm_role r) { return (unsigned)r <= DM_ROLE_SERVER ? role_names[r] : "none"; }

bool dm_role_parse(const char *text, dm_role *out)
{
    for (dm_role r = DM_ROLE_CLIENT; r <= DM_ROLE_ADMIN; r++)
        if (!strcmp(role_names[r], text)) {
            *out = r;
            return true;
        }
    return false;
}

void dm_key_make(dm_key_pair *k)
{
    ES_ASSERT(sodium_init() >= 0);
    crypto_box_keypair(k->pub, k->secret);
}

void dm_key_hex(const uint8_t key[DM_KEY_BYTES], char hex[DM_KEY_HEX])
{
    sodium_bin2hex(hex, DM_KEY_HEX, key, DM_KEY_BYTES);
}

bool dm_key_parse(const char *hex, size_t n, uint8_t key[DM_KEY_BYTES])
{
    size_t got = 0;
    const char *end = NULL;
    return n == DM_KEY_HEX - 1 && sodium_hex2bin(key, DM_KEY_BYTES, hex, n, NULL, &got, &end) == 0 &&
           got == DM_KEY_BYTES && end == hex + n;
}

bool dm_key_name_valid(const char *name)
{
    size_t n = strlen(name);
    return n >= 1 && n < DM_KEY_NAME_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@") == n;
}

/* ---- lines */

typedef struct word {
    const char *at;
    size_t n;
} word;

/* The next word of [*at, end); n == 0 at the end. */
static word next_word(const char **at, const char *end)
{
    while (*at < end && (**at == ' ' || **at == '\t' || **at == '\r'))
        ++*at;
    word w = {*at, 0};
    while (*at < end && **at != ' ' && **at != '\t' && **at != '\r')
        ++*at;
    w.n = (size_t)(*at - w.at);
    return w;
}

static bool word_copy(const word *w, char *out, size_t size)
{
    if (w->n >= size || memchr(w->at, 0, w->n))
        return false;
    memcpy(out, w->at, w->n);
    out[w->n] = 0;
    return true;
}

es_status dm_key_line_parse(const char *text, size_t n, dm_key_line *out, es_error *err)
{
    const char *at = text, *end = text + n;
    word role = next_word(&at, end);
    *out = (dm_key_line){0};
    if (role.n == 0 || role.at[0] == '#')
        return ES_NOT_FOUND;
    word name = next_word(&at, end), key = next_word(&at, end), rest = next_word(&at, end);
    char text_of_role[16];
    if (!word_copy(&role, text_of_role, sizeof text_of_role))
        snprintf(text_of_role, sizeof text_of_role, "?");
    if (!strcmp(text_of_role, "server"))
        out->role = DM_ROLE_SERVER;
    else if (!dm_role_parse(text_of_role, &out->role))
        return es_fail(err, ES_INVALID, NULL,
                       "the role is \"%s\", allowed are client, worker and admin (a line is: ROLE NAME KEY)",
                       text_of_role);
    if (!word_copy(&name, out->name, sizeof out->name) || !dm_key_name_valid(out->name))
        return es_fail(err, ES_INVALID, NULL,
                       "the name must have 1 to %d letters, digits or . _ - @ (a line is: ROLE NAME KEY)",
                       DM_KEY_NAME_MAX - 1);
    if (!dm_key_parse(key.at, key.n, out->pub))
        return es_fail(err, ES_INVALID, NULL,
                       "the key has %zu characters, a public key has 64 hexadecimal digits (a line is: ROLE NAME KEY)",
                       key.n);
    if (rest.n != 0 && rest.at[0] != '#')
        return es_fail(err, ES_INVALID, NULL, "there is more after the key (a line is: ROLE NAME KEY)");
    return ES_OK;
}

/* ---- files */

/* Names are on the disk once their folder is. */
static es_status sync_folder_of(const char *path, es_error *err)
{
    char dir[PATH_BYTES];
    const char *slash = strrchr(path, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    int fd = open(dir[0] ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = fd >= 0 && fsync(fd) == 0;
    es_status s = good ? ES_OK : es_fail_errno(err, dir, "cannot make the folder last");
    if (fd >= 0)
        close(fd);
    return s;
}

es_status dm_secret_file_write(const char *path, const char *text, unsigned mode, es_error *err)
{
    char fresh[PATH_BYTES];
    size_t n = strlen(text);
    if ((size_t)snprintf(fresh, sizeof fresh, "%s.new", path) >= sizeof fresh)
        return es_fail(err, ES_INVALID, path, "the path is too long: at most %zu bytes", sizeof fresh - 5);
    unlink(fresh); /* of one who was killed */
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return es_fail_errno(err, path, "cannot make the file");
    /* The mode in spite of the umask. The name is given to a whole file, and to no other's (link does not replace). */
    bool good = fchmod(fd, mode) == 0 && write(fd, text, n) == (ssize_t)n && fsync(fd) == 0 && link(fresh, path) == 0;
    es_status s = good ? ES_OK : es_fail_errno(err, path, "cannot write");
    close(fd);
    unlink(fresh);
    return s == ES_OK ? sync_folder_of(path, err) : s;
}

es_status dm_secret_file_check(const char *path, bool secret, es_error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return es_fail_errno(err, path, "cannot look at the file");
    if (!S_ISREG(st.st_mode))
        return es_fail(err, ES_INVALID, path, "is no file");
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return es_fail(err, ES_DENIED, path, "belongs to another user (%u): who owns it could change it",
                       (unsigned)st.st_uid);
    if (secret && (st.st_mode & 077))
        return es_fail(err, ES_DENIED, path,
                       "others may read or change it (mode %03o): chmod 600 it; a key that was"
                       " readable by others should be made anew",
                       (unsigned)st.st_mode & 0777);
    if (st.st_mode & 022)
        return es_fail(err, ES_DENIED, path, "others may change it (mode %03o): chmod go-w it",
                       (unsigned)st.st_mode & 0777);
    return ES_OK;
}

static es_status join(char *out, size_t size, const char *dir, const char *name, const char *ending, es_error *err)
{
    if ((size_t)snprintf(out, size, "%s/%s%s", dir, name, ending) >= size)
        return es_fail(err, ES_INVALID, dir, "the path is too long: at most %zu bytes", size - 1);
    return ES_OK;
}

static es_status public_write(const char *path, dm_role role, const char *name, const dm_key_pair *k, es_error *err)
{
    char text[512], hex[DM_KEY_HEX];
    dm_key_hex(k->pub, hex);
    snprintf(text, sizeof text, "%s %s %s\n", dm_role_name(role), name, hex);
    return dm_secret_file_write(path, text, 0644, err);
}

es_status dm_key_write(const char *dir, dm_role role, const char *name, const dm_key_pair *k, es_error *err)
{
    char path[PATH_BYTES], pub[PATH_BYTES], text[512], hex[DM_KEY_HEX];
    struct stat st;
    if (!dm_key_name_valid(name))
        return es_fail(err, ES_INVALID, "name", "\"%s\" is no name: 1 to %d letters, digits or . _ - @ are", name,
                       DM_KEY_NAME_MAX - 1);
    ES_RETURN(join(path, sizeof path, dir, dm_role_name(role), ".key", err));
    ES_RETURN(join(pub, sizeof pub, dir, dm_role_name(role), ".pub", err));
    if (stat(dir, &st) != 0) {
        ES_RETURN(es_file_mkdirs(dir, err));
        if (chmod(dir, 0700) != 0)
            return es_fail_errno(err, dir, "cannot make the folder private");
    }
    if (es_file_exists(path) || es_file_exists(pub))
        return es_fail(err, ES_EXISTS, es_file_exists(path) ? path : pub,
                       "there is a key already and nothing was written: remove or rename it first, or name another "
                       "folder");
    dm_key_hex(k->secret, hex);
    snprintf(text, sizeof text,
             "# The secret key of %s %s. It stays on this machine; only the .pub file is given away.\nsecret %s\n",
             dm_role_name(role), name, hex);
    es_status s = dm_secret_file_write(path, text, 0600, err);
    sodium_memzero(text, sizeof text);
    ES_RETURN(s);
    return public_write(pub, role, name, k, err);
}

es_status dm_key_complete(const char *dir, dm_role role, const char *name, dm_key_pair *k, bool *made, es_error *err)
{
    char path[PATH_BYTES], pub[PATH_BYTES];
    *made = false;
    ES_RETURN(join(path, sizeof path, dir, dm_role_name(role), ".key", err));
    ES_RETURN(join(pub, sizeof pub, dir, dm_role_name(role), ".pub", err));
    if (!es_file_exists(path) || es_file_exists(pub))
        return ES_OK;
    ES_RETURN(dm_key_read_secret(path, k, err));
    *made = true;
    return public_write(pub, role, name, k, err);
}

/* The first line that is no comment. */
static word first_line(const char *text, size_t n)
{
    const char *at = text, *end = text + n;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        const char *p = at;
        word w = next_word(&p, stop);
        if (w.n && w.at[0] != '#')
            return (word){at, (size_t)(stop - at)};
        at = stop + (stop < end);
    }
    return (word){end, 0};
}

es_status dm_key_read_secret(const char *path, dm_key_pair *out, es_error *err)
{
    char *text = NULL;
    size_t n = 0;
    ES_RETURN(dm_secret_file_check(path, true, err));
    ES_RETURN(es_file_read(path, KEY_FILE_MAX, &text, &n, err));
    word line = first_line(text, n);
    const char *at = line.at, *end = line.at + line.n;
    word tag = next_word(&at, end), key = next_word(&at, end);
    es_status s = ES_OK;
    if (tag.n != 6 || memcmp(tag.at, "secret", 6) != 0 || !dm_key_parse(key.at, key.n, out->secret))
        s = es_fail(err, ES_INVALID, path,
                    "is no secret key file: a line \"secret\" and 64 hexadecimal digits is missing"
                    " (`espalier keygen` makes one; a .pub file is not it)");
    else if (sodium_init() < 0 || crypto_scalarmult_base(out->pub, out->secret) != 0)
        s = es_fail(err, ES_INVALID, path, "holds no usable key");
    sodium_memzero(text, n);
    free(text);
    return s;
}

es_status dm_key_read_public(const char *path, dm_key_line *out, es_error *err)
{
    char *text = NULL;
    size_t n = 0;
    ES_RETURN(dm_secret_file_check(path, false, err));
    ES_RETURN(es_file_read(path, KEY_FILE_MAX, &text, &n, err));
    word line = first_line(text, n);
    es_status s = dm_key_line_parse(line.at, line.n, out, err);
    free(text);
    if (s == ES_NOT_FOUND)
        return es_fail(err, ES_INVALID, path, "holds no public key: a line ROLE NAME KEY");
    return s == ES_OK ? ES_OK : es_at(err, s, path);
}

/* ---- finding */

void dm_keys_dir(char *out, size_t size)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (config && config[0] == '/')
        snprintf(out, size, "%s/espalier", config);
    else
        snprintf(out, size, "%s/.config/espalier", home ? home : "");
}

static const char *named(const char *option, const char *variable)
{
    const char *v = option ? option : getenv(variable);
    return v && v[0] ? v : NULL;
}

static es_status find_own(const dm_keys_where *w, char path[PATH_BYTES], dm_keys *out, es_error *err)
{
    char dir[PATH_BYTES - 64];
    const char *given = named(w->key, "ESPALIER_KEY"), *role = dm_role_name(w->role);
    if (given) {
        if ((size_t)snprintf(path, PATH_BYTES, "%s", given) >= PATH_BYTES)
            return es_fail(err, ES_INVALID, "--key", "the path is too long");
        return dm_key_read_secret(path, &out->own, err);
    }
    dm_keys_dir(dir, sizeof dir);
    snprintf(path, PATH_BYTES, "%s/%s.key", dir, role);
    if (!es_file_exists(path)) {
        snprintf(path, PATH_BYTES, "%s/admin.key", dir);
        if (w->role == DM_ROLE_WORKER || !es_file_exists(path))
            return es_fail(err, ES_NOT_FOUND, "key",
                           "a tcp endpoint needs a key, and there is none: no --key, no ESPALIER_KEY, no %s/%s.key. "
                           "`espalier keygen --role %s` makes one; its .pub line goes into the coordinator's "
                           "keys/authorized_keys. On the coordinator's host, --key DIR/keys/admin.key works at once",
                           dir, role, role);
    }
    return dm_key_read_secret(path, &out->own, err);
}

static es_status find_server(const dm_keys_where *w, const char *own, dm_keys *out, es_error *err)
{
    char path[PATH_BYTES], dir[PATH_BYTES - 64];
    const char *given = named(w->server, "ESPALIER_SERVER_KEY"), *slash = strrchr(own, '/');
    dm_key_line line;
    if (given && dm_key_parse(given, strlen(given), out->server))
        return ES_OK;
    if (given) {
        if ((size_t)snprintf(path, sizeof path, "%s", given) >= sizeof path)
            return es_fail(err, ES_INVALID, "--server-key", "the path is too long");
    } else {
        int n = slash ? (int)(slash - own) : 1;
        snprintf(path, sizeof path, "%.*s/server.pub", n, slash ? own : ".");
        dm_keys_dir(dir, sizeof dir);
        if (!es_file_exists(path))
            snprintf(path, sizeof path, "%s/server.pub", dir);
        if (!es_file_exists(path))
            return es_fail(
                err, ES_NOT_FOUND, "server key",
                "the coordinator's public key is missing: no --server-key, no ESPALIER_SERVER_KEY, no %s. Copy "
                "keys/server.pub from the coordinator's folder there",
                path);
    }
    ES_RETURN(dm_key_read_public(path, &line, err));
    if (line.role != DM_ROLE_SERVER)
        return es_fail(err, ES_INVALID, path, "is the public key of a %s, the server's (server.pub) is needed",
                       dm_role_name(line.role));
    memcpy(out->server, line.pub, DM_KEY_BYTES);
    return ES_OK;
}

es_status dm_keys_find(const dm_keys_where *w, dm_keys *out, es_error *err)
{
    char own[PATH_BYTES];
    ES_RETURN(find_own(w, own, out, err));
    return find_server(w, own, out, err);
}

es_status dm_login_find(const char *endpoint, const dm_keys_where *w, bool insecure, dm_login *out, es_error *err)
{
    const char *e = getenv("ESPALIER_INSECURE");
    *out = (dm_login){.insecure = insecure || (e && !strcmp(e, "1"))};
    if (out->insecure)
        return ES_OK;
    if (strncmp(endpoint, "tcp://", 6) != 0) { /* not needed here, perhaps for the weights of the same coordinator */
        out->keyed = dm_keys_find(w, &out->keys, NULL) == ES_OK;
        return ES_OK;
    }
    out->keyed = true;
    return dm_keys_find(w, &out->keys, err);
}
