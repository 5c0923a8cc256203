/* What a search found, as JSON: a function of its rows alone, so that the same search gives the same bytes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/driver/hunt.h"

void dm_report_objectives(const dm_search *s, es_json *j)
{
    es_json_array(j, "objectives");
    for (int i = 0; i < s->file->objectives; i++) {
        es_json_object(j, NULL);
        es_json_str(j, "measure", sn_measure_name(s->file->objective[i].measure));
        es_json_str(j, "goal", s->file->objective[i].maximise ? "max" : "min");
        es_json_end(j);
    }
    es_json_end(j);
}

/* How far an accuracy can be trusted: the Wilson score interval at 95 % (E. B. Wilson, JASA 22, 1927), of `correct` out of `samples` independent images. */
static void report_interval(es_json *j, const char *key, int64_t correct, int64_t samples)
{
    if (samples <= 0)
        return;
    const double z = 1.959963984540054;
    double n = (double)samples, p = (double)correct / n, z2 = z * z;
    double middle = (p + z2 / (2 * n)) / (1 + z2 / n),
           half = z * sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n);
    es_json_array(j, key);
    es_json_f64(j, NULL, middle - half);
    es_json_f64(j, NULL, middle + half);
    es_json_end(j);
}

/* How a latency was measured: its spread, how often, on what and at which clocks. From the rows, since of all the candidates only a front's are asked for. */
static void report_latency(const dm_hunt *h, const dm_found *f, es_json *j)
{
    dm_result r;
    char machine[256];
    if (!f->latency_known || dm_result_get(h->s->c->store, h->s->id, &f->id, "", DM_SPLIT_NONE, DM_MEASURE_LATENCY, &r,
                                           machine, NULL) != ES_OK)
        return;
    es_json_object(j, "latency");
    es_json_array(j, "quartiles_ms");
    es_json_f64(j, NULL, r.low);
    es_json_f64(j, NULL, r.high);
    es_json_end(j);
    es_json_i64(j, "runs", r.samples);
    es_json_str(j, "machine", machine);
    es_json_end(j);
}

void dm_report_member(const dm_hunt *h, int64_t ticket, bool final, es_json *j)
{
    const dm_found *f = &h->found[ticket];
    char *text = dm_hunt_text(h, ticket);
    es_json_object(j, NULL);
    es_json_str(j, "architecture", text);
    const bool language = h->s->file->task == SN_TASK_LANGUAGE,
               independent = h->s->file->task ==
                             SN_TASK_IMAGES; /* positions of one text are not, a table does not say its samples */
    if (language) {
        es_json_f64(j, "bits_per_character", f->bits);
        es_json_f64(j, "test_bits_per_character", f->test_bits);
    }
    es_json_f64(j, "accuracy", f->accuracy);
    report_interval(j, "accuracy_95", f->correct, independent ? f->samples : 0);
    es_json_f64(j, "test_accuracy", f->test_accuracy);
    report_interval(j, "test_accuracy_95", f->test_correct, independent ? f->test_samples : 0);
    es_json_i64(j, "params", f->cost.params);
    es_json_i64(j, "macs", f->cost.macs);
    es_json_f64(j, "latency_ms", f->latency_ms);
    report_latency(h, f, j);
    es_json_i64(j, "activation_bytes", f->cost.activation_bytes);
    if (final)
        es_json_str(j, "weights", f->exported[0] ? f->exported : NULL);
    es_json_end(j);
    free(text);
}

char *dm_report_result(dm_hunt *h, const char *weights)
{
    const sn_search_file *f = h->s->file;
    es_json j;
    int64_t *front, failed = 0;
    int n = dm_hunt_front(h, &front);
    for (int64_t t = 0; t < sr_told(h->search); t++)
        failed += h->found[t].failed;
    es_json_begin(&j, 2);
    es_json_object(&j, NULL);
    es_json_str(&j, "name", f->name);
    es_json_i64(&j, "seed", (int64_t)f->seed);
    es_json_str(&j, "algorithm", f->algorithm);
    es_json_i64(&j, "evaluations", sr_told(h->search));
    es_json_i64(&j, "failed_evaluations", failed);
    dm_report_objectives(h->s, &j);
    es_json_str(&j, "weights", weights && weights[0] ? weights : NULL);
    es_json_array(&j, "front");
    for (int i = 0; i < n; i++)
        dm_report_member(h, front[i], true, &j);
    es_json_end(&j);
    es_json_end(&j);
    free(front);
    return es_json_finish(&j);
}
