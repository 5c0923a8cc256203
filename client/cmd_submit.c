/* submit: the file is read, checked and normalised here, where its paths mean something; then it is the coordinator's. */
#include "client/connect.h"
#include "supernet/searchfile/searchfile.h"

#include <inttypes.h>
#include <sodium.h>

static int run_submit(const cl_args *a)
{
    es_error err = {0};
    es_status s = ES_OK;
    dm_peer *p = NULL;
    sn_search_file *file = NULL;
    int64_t priority = 0;
    uint64_t search = 0;
    bool existed = false;
    uint8_t bytes[16];
    char token[33];
    const char *text = cl_value(a, "--priority"), *given = cl_value(a, "--token");
    if (text && !cl_number(a, "--priority", text, -1000, 1000, &priority))
        return CL_USAGE;
    ES_GOTO(sn_search_file_load(a->word[0], &file, &err));
    randombytes_buf(bytes, sizeof bytes);
    sodium_bin2hex(token, sizeof token, bytes, sizeof bytes);
    ES_GOTO(cl_connect(a, &p, &err));
    ES_GOTO(cl_submit(p, given ? given : token, file->text, text ? (int)priority : file->priority, &search, &existed,
                      &err));
    printf("search %" PRIu64 "%s\n", search, existed ? " (submitted before)" : "");
fail:
    sn_search_file_destroy(&file);
    dm_peer_close(&p);
    return s == ES_OK ? CL_OK : cl_fail(&err);
}

static const cl_option options[] = {
    {"--priority", "N", "higher goes first (default: the file's)"},
    {"--token", "TEXT", "submitting the same token again gives the same search"},
    CL_ENDPOINT,
    CL_END,
};
const cl_command cl_cmd_submit = {
    "submit", "SEARCH.yaml", "hand a search to a coordinator; prints its number", 1, 1, run_submit, options, NULL};
