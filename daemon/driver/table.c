/* A search against a published table: the coordinator looks the values up itself, a bounded number between messages; no worker, no weights. */
#include <stdlib.h>

#include "daemon/coord/search.h"
#include "daemon/driver/hunt.h"
#include "supernet/table.h"

typedef struct table_driver {
    dm_hunt *hunt;
    sn_table *table;
} table_driver;

static bool table_takes(const sn_search_file *f) { return f->task == SN_TASK_TABLE; }

static es_status table_look_up(dm_hunt *h, int64_t ticket, sn_split split, es_error *err)
{
    table_driver *d = h->s->driver_state;
    dm_result row = {.id = h->found[ticket].id,
                     .weights = "",
                     .split = split == SN_TEST_SPLIT ? DM_SPLIT_TEST : DM_SPLIT_VALIDATION,
                     .measure = DM_MEASURE_TABLE};
    es_status s = sn_table_value(d->table, sr_asked_arch(h->search, ticket), split, &row.value, err);
    if (s != ES_OK && s != ES_NOT_FOUND)
        return s;
    row.ok = s == ES_OK; /* an architecture that was not published cannot win */
    return dm_hunt_result(h, &row, err);
}

static es_status table_batch(dm_hunt *h, int64_t number, int64_t first, int count, es_error *err)
{
    (void)number;
    for (int i = 0; i < count; i++)
        ES_RETURN(table_look_up(h, first + i, SN_VALIDATION_SPLIT, err));
    return ES_OK;
}

static es_status table_open(dm_search *s, es_error *err)
{
    table_driver *d = s->driver_state = es_xcalloc(1, sizeof *d);
    es_status status = sn_table_open(&s->file->table, s->file->space, &d->table, err);
    if (status != ES_OK) /* whatever is wrong with the file is this search's trouble, not the coordinator's */
        return es_fail(err, ES_INVALID, s->file->table.file, "the table cannot be used: %s", err ? err->text : "");
    return dm_hunt_open(s, table_batch, &d->hunt, err);
}

static void table_close(dm_search *s)
{
    table_driver *d = s->driver_state;
    if (!d)
        return;
    dm_hunt_close(&d->hunt);
    sn_table_close(&d->table);
    free(d);
    s->driver_state = NULL;
}

static es_status table_advance(dm_search *s, es_error *err)
{
    table_driver *d = s->driver_state;
    int64_t *front = NULL;
    ES_RETURN(dm_search_phase(s, err, "reading the table"));
    ES_RETURN(dm_hunt_advance(d->hunt, err));
    if (!dm_hunt_over(d->hunt) || s->state == DM_SEARCH_PAUSED)
        return ES_OK; /* s->busy brings us back */
    int n = dm_hunt_front(d->hunt, &front);
    es_status status = n ? ES_OK
                         : es_fail(err, ES_INFEASIBLE, "constraints",
                                   "none of the %lld looked up architectures meets every constraint",
                                   (long long)sr_told(d->hunt->search));
    for (int i = 0; i < n && status == ES_OK; i++)
        status = table_look_up(d->hunt, front[i], SN_TEST_SPLIT, err);
    free(front);
    ES_RETURN(status);
    char *json = dm_report_result(d->hunt, NULL);
    status = dm_search_set_result(s->c->store, s->id, json, err);
    free(json);
    ES_RETURN(status);
    ES_RETURN(dm_search_phase(s, err, "done"));
    return dm_search_end(s->c, s, DM_SEARCH_DONE, NULL, err);
}

static void table_show(dm_search *s, es_json *j)
{
    table_driver *d = s->driver_state;
    es_json_raw(j, "training", "null");
    es_json_object(j, "evaluations");
    es_json_i64(j, "done", d->hunt ? sr_told(d->hunt->search) : 0);
    es_json_i64(j, "total", s->file->evaluations);
    es_json_end(j);
    es_json_raw(j, "left_s", "null");
}

static void table_pareto(dm_search *s, es_json *j)
{
    table_driver *d = s->driver_state;
    int64_t *front;
    int n = dm_hunt_front(d->hunt, &front);
    for (int i = 0; i < n; i++)
        dm_report_member(d->hunt, front[i], false, j);
    free(front);
}

const dm_driver dm_driver_table = {
    .name = "table",
    .takes = table_takes,
    .open = table_open,
    .close = table_close,
    .advance = table_advance,
    .show = table_show,
    .pareto = table_pareto,
};
