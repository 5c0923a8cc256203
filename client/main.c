/* espalier: the user's command. Everything is in the table of command.c. */
#include "client/command.h"

#include "base/file.h"
#include "base/log.h"

#include <signal.h>

enum { DESCRIPTORS = 32 }; /* a connection or two with their threads */

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    es_log_init("espalier", ES_LOG_WARN);
    es_error err;
    if (es_file_limit(DESCRIPTORS, &err) != ES_OK)
        return cl_fail(&err);
    return cl_main(argc, argv);
}
