/* command_line.h - espalierd's command line: what to do, and the configuration after file and options.
 *
 *     dm_command_line line = {argc, argv};
 *     dm_config config; dm_task task;
 *     if (dm_command_line_read(&line, &config, &task, err) != ES_OK) ...       // err.where is the option, err.text what is wrong and what is allowed
 *     if (task.show[0]) { fputs(task.show, stdout); return 0; }
 *
 * Options win over the file wherever they stand, so the line is read twice: first for -c (and --help), then for the rest. Reading it again later is a reload.
 */
#ifndef DM_COMMAND_LINE_H
#define DM_COMMAND_LINE_H

#include "daemon/config.h"

typedef struct dm_command_line {
    int argc;
    char **argv; /* borrowed; getopt may reorder it */
} dm_command_line;

/* What to do besides serving; all empty: serve. */
typedef struct dm_task {
    char show[2048]; /* --help, --version: the text for standard output */
    bool check;
    const char *restore; /* a backup; points into argv */
    bool force;
} dm_task;

es_status dm_command_line_read(const dm_command_line *line, dm_config *config, dm_task *task,
                               es_error *err) ES_MUST_CHECK;

#endif
