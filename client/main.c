/* espalier: the user's command. Everything is in the table of command.c. */
#include "client/command.h"

#include "base/log.h"

#include <signal.h>

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    es_log_init("espalier", ES_LOG_WARN);
    return cl_main(argc, argv);
}
