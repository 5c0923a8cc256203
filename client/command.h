/* command.h - the table of `espalier`'s commands, and what they share: options, messages, exit statuses.
 *
 * To add a command: one file cmd_<name>.c with a `const cl_command cl_cmd_<name>`, one line in the table in command.c. Its help, the check of its arguments and
 * "did you mean" come from the description.
 *
 *     static int run_pause(const cl_args *a)
 *     {
 *         es_error err;
 *         ... return s == ES_OK ? CL_OK : cl_fail(&err);
 *     }
 *     const cl_command cl_cmd_pause = {"pause", "SEARCH", "start no more jobs of a search", 1, 1, run_pause, options, NULL};
 */
#ifndef CL_COMMAND_H
#define CL_COMMAND_H

#include "base/status.h"

enum { CL_OK = 0, CL_FAILED = 1, CL_USAGE = 2 }; /* exit statuses */
enum { CL_OPTIONS_MAX = 16, CL_WORDS_MAX = 64 };

typedef struct cl_option {
    const char *name;  /* "--out"; the table ends with NULL */
    const char *value; /* "DIR"; NULL: a flag */
    const char *help;
} cl_option;

typedef struct cl_command cl_command;
typedef struct cl_args {
    const cl_command *command;
    int words; /* what is no option */
    const char *word[CL_WORDS_MAX];
    const char *value[CL_OPTIONS_MAX]; /* by the option's place in the table; NULL: not given; a flag: "" */
} cl_args;

struct cl_command {
    const char *name, *arguments, *summary;
    int words_min, words_max;
    int (*run)(const cl_args *a);
    const cl_option *options;
    const char *more; /* further help; may be NULL */
};

int cl_main(int argc, char **argv);

const char *cl_value(const cl_args *a, const char *option); /* NULL: not given. The option is in the command's table. */
static inline bool cl_flag(const cl_args *a, const char *option) { return cl_value(a, option) != NULL; }
/* Numbers from words and options; false after having said what is wrong (return CL_USAGE then). */
bool cl_number(const cl_args *a, const char *what, const char *text, int64_t min, int64_t max, int64_t *out);

int cl_fail(const es_error *err);                                     /* "espalier: where: text"; CL_FAILED */
int cl_usage(const cl_args *a, const char *fmt, ...) ES_PRINTF(2, 3); /* the same, with where to find help; CL_USAGE */

#endif
