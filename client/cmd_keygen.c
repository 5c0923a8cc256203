/* keygen: a key pair for this user or worker, and what to do with its two files. */
#include "client/connect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 1024 };

/* The user for a client or admin, the host for a worker; what a name may not have becomes '-'. */
static void default_name(dm_role role, char name[DM_KEY_NAME_MAX])
{
    char host[DM_KEY_NAME_MAX] = "";
    gethostname(host, sizeof host - 1);
    snprintf(name, DM_KEY_NAME_MAX, "%s", role == DM_ROLE_WORKER ? host : cl_user());
    for (char *c = name; *c; c++) {
        char one[2] = {*c, 0};
        if (!dm_key_name_valid(one))
            *c = '-';
    }
}

static int run_keygen(const cl_args *a)
{
    es_error err = {0};
    char dir[PATH_BYTES - 64], name[DM_KEY_NAME_MAX], hex[DM_KEY_HEX];
    const char *role_text = cl_value(a, "--role"), *given = cl_value(a, "--name");
    dm_role role = DM_ROLE_CLIENT;
    dm_key_pair k;
    bool completed = false;
    if (role_text && !dm_role_parse(role_text, &role))
        return cl_usage(a, "--role is \"%s\", allowed are client, worker and admin", role_text);
    default_name(role, name);
    if (given && !dm_key_name_valid(given))
        return cl_usage(a, "--name is \"%s\", allowed are 1 to %d letters, digits or . _ - @", given,
                        DM_KEY_NAME_MAX - 1);
    if (given)
        snprintf(name, sizeof name, "%s", given);
    if (a->words == 0)
        dm_keys_dir(dir, sizeof dir);
    else if ((size_t)snprintf(dir, sizeof dir, "%s", a->word[0]) >= sizeof dir)
        return cl_usage(a, "DIR is too long: at most %zu bytes", sizeof dir - 1);
    if (dm_key_complete(dir, role, name, &k, &completed, &err) != ES_OK)
        return cl_fail(&err);
    if (completed) {
        printf("The key was there without its .pub: it is made from the key.\n");
    } else {
        dm_key_make(&k);
        if (dm_key_write(dir, role, name, &k, &err) != ES_OK)
            return cl_fail(&err);
    }
    dm_key_hex(k.pub, hex);
    printf("%s/%s.key is the secret key: it stays on this machine, readable by its owner only.\n"
           "%s/%s.pub is the public one. Whoever runs the coordinator appends this line to keys/authorized_keys in its "
           "folder, sends espalierd a SIGHUP, and gives you keys/server.pub from there, to be put beside the key:\n\n"
           "%s %s %s\n",
           dir, dm_role_name(role), dir, dm_role_name(role), dm_role_name(role), name, hex);
    return CL_OK;
}

static const cl_option options[] = {
    {"--role", "ROLE", "client (default), worker or admin: the line's proposal"},
    {"--name", "NAME", "whose key it is (default: the user; for a worker, the host)"},
    CL_END,
};
const cl_command cl_cmd_keygen = {
    "keygen",
    "[DIR]",
    "make a key pair for tcp connections, in DIR (default ~/.config/espalier)",
    0,
    1,
    run_keygen,
    options,
    "Clients look for client.key (or admin.key), workers for worker.key in ~/.config/espalier, unless --key FILE or\n"
    "ESPALIER_KEY names another; server.pub is looked for beside the key, unless --server-key or ESPALIER_SERVER_KEY\n"
    "names it. docs/security.md says what each role may do.\n"};
