/* searchfile.h - a whole search as its user wrote it: search.yaml, checked and with every default filled in.
 *
 *     sn_search_file *f; ES_RETURN(sn_search_file_load("search.yaml", &f, err));   // every mistake: file:line:column: field: what is wrong, what is allowed
 *
 * The coordinator stores the text (sn_search_file_text) and every worker reads it again: one parser, one meaning. Paths in `task.data` are made
 * absolute relative to the file when the file is read by the client. docs/search-file.md describes every field with its default; schemas/ holds the same.
 */
#ifndef SN_SEARCHFILE_H
#define SN_SEARCHFILE_H

#include "kernels/optim/optim.h"
#include "search/algorithm.h"
#include "supernet/space/space.h"

enum { SN_OBJECTIVES_MAX = 4, SN_PATH_MAX = 512 };

typedef enum sn_task_kind { SN_TASK_IMAGES, SN_TASK_TABLE, SN_TASK_LANGUAGE } sn_task_kind;
typedef enum sn_data_format {
    SN_DATA_IDX,
    SN_DATA_CIFAR,
    SN_DATA_NPY,
    SN_DATA_CSV,
    SN_DATA_TEXT,
    SN_DATA_TOKENS
} sn_data_format;

typedef struct sn_data_config {
    sn_data_format format;
    char train
        [SN_PATH_MAX]; /* IDX: prefix of "-images-idx3-ubyte[.gz]" and "-labels-idx1-ubyte[.gz]"; CIFAR: comma-separated files; NPY/NPZ, CSV: see docs */
    char test[SN_PATH_MAX];
    char validation_file[SN_PATH_MAX]; /* tokens only; empty: the end of the training tokens */
    int token_bytes;                   /* TOKENS: of a raw file */
    int64_t validation; /* samples held out of the training set, drawn by the seed; tokens at its end, -1 a tenth */
    int64_t limit;      /* 0: all; use only the first so many training samples (or tokens) */
} sn_data_config;

typedef struct sn_augment_config {
    int pad_crop, cutout;
    bool flip, normalise;
} sn_augment_config;

/* Published table: `task: {kind: table, file: nas_bench_201.csv, architecture: arch, value: cifar10_test ...}` */
typedef struct sn_table_config {
    char file[SN_PATH_MAX];
    char key[64], value[64], report[64];
} sn_table_config;

/* The training methods, one line each: X(NAME, name, its spelling in a search file, passes of a step that come again in every one: their plans are kept and on a
 * GPU recorded). Its file is supernet/train/methods/<name>.c. */
#define SN_METHODS(X)                             \
    X(SINGLE_PATH, single_path, "single-path", 0) \
    X(SANDWICH, sandwich, "sandwich", 2)          \
    X(MODULES, modules, "modules", 1)

typedef enum sn_method {
#define X(NAME, name, spelling, repeating) SN_METHOD_##NAME,
    SN_METHODS(X)
#undef X
        SN_METHOD_COUNT
} sn_method;
typedef enum sn_distill { SN_DISTILL_NONE, SN_DISTILL_KL, SN_DISTILL_ALPHA } sn_distill;

typedef struct sn_modules_config {
    int parts;
    double epochs_meta, epochs_part, epochs_finetune;
    bool end_to_end; /* also train the whole network for as many multiply-adds, to compare */
    int cuts;
    int cut[16];
} sn_modules_config;

typedef struct sn_supernet_config {
    sn_method method;
    int random_subnets; /* sandwich: besides the largest and the smallest */
    sn_distill distill;
    double epochs;
    int batch;
    bool own_subnets; /* in a gang every rank draws its own subnets, instead of all the same */
    float smoothing;
    kn_optim_config optimizer;
    kn_schedule schedule; /* warm-up and total in steps are filled from epochs by sn_train_steps */
    double warmup_epochs;
    /* Checkpoint at least this often (steps per slice are fixed from `slice_steps`, so that results do not depend on speed). */
    double slice_seconds;
    int64_t slice_steps;
    int64_t calibration;   /* samples for batch-norm recalibration of each evaluated subnet, default 2048 */
    int calibration_batch; /* 0: sn_calibration_batch (train/train.h) */
    sn_modules_config modules;
} sn_supernet_config;

typedef enum sn_measure {
    SN_MEASURE_ACCURACY,
    SN_MEASURE_PARAMS,
    SN_MEASURE_MACS,
    SN_MEASURE_ACTIVATION_BYTES,
    SN_MEASURE_LATENCY_MS,
    SN_MEASURE_BITS, /* mean cross-entropy of a token in bits; of text: per character (byte) */
    SN_MEASURES
} sn_measure;
/* "accuracy", "params", "macs", "activation_bytes", "latency_ms", "bits_per_character". */
const char *sn_measure_name(sn_measure m);
bool sn_measure_known(sn_measure m); /* computed by the cost model, without training or measuring */

typedef struct sn_objective {
    sn_measure measure;
    bool maximise;
} sn_objective;
typedef struct sn_limit {
    sn_measure measure;
    double min, max;
} sn_limit;

typedef struct sn_search_file {
    char name[128];
    uint64_t seed;
    sn_task_kind task;
    sn_data_config data;
    sn_augment_config augment;
    sn_table_config table;
    sn_space *space;
    sn_supernet_config supernet;
    char algorithm[32];
    sr_options options;
    int64_t evaluations;
    int64_t validation_limit; /* search.validation: evaluate on so many of the held-out samples; 0 all */
    int objectives;
    sn_objective objective[SN_OBJECTIVES_MAX];
    int limits;
    sn_limit limit[SR_CONSTRAINTS_MAX];
    bool export_safetensors, export_onnx;
    int priority;
    int gpus;
    char *text; /* normalised YAML with absolute paths: what is submitted and stored; the search's identity */
} sn_search_file;

es_status sn_search_file_load(const char *path, sn_search_file **out, es_error *err) ES_MUST_CHECK;
es_status sn_search_file_parse(const char *name, const char *text, size_t n, const char *base_dir, sn_search_file **out,
                               es_error *err) ES_MUST_CHECK;
/* Is there any architecture inside the constraints on known costs? ES_INFEASIBLE with the closest costs seen; up to a second for a large space. sn_search_file_load
 * asks it, so that nothing impossible is queued. */
es_status sn_search_file_feasible(const sn_search_file *f, es_error *err) ES_MUST_CHECK;
/* What trainers keep at most (train/links.h, train/plans.h, train/train.h) stands here, because the coordinator predicts from it and sees no trainer. */
enum {
    SN_EVAL_BATCH = 128,      /* samples scored at a time on a processor; more on a GPU */
    SN_PLANS_MAX = 8,         /* of passes that come again in every step */
    SN_LINK_PLANS_MAX = 4096, /* of units that were scored */
};
/* Memory that a job of this search is expected to need, from the cost model of the largest architecture: weights, and for training gradients, optimiser state,
 * what the backward pass keeps of a batch and the recorded passes; for scoring the plans of units that are kept from subnet to subnet. A device's and its host's
 * memory are not told apart (plans are in the host's, recordings in a GPU's). Data, libraries and the device's own needs are not in it. 0: not known (a search against a table).
 * It decides what may share a device; whether a job fits is known for sure only from its plan. */
int64_t sn_search_file_memory(const sn_search_file *f, bool training);
void sn_search_file_destroy(sn_search_file **f);
/* The sr_problem of a file: objectives, constraints, and the cost model as `costs` (params, macs, activation_bytes). Borrows f. */
void sn_search_file_problem(const sn_search_file *f, sr_problem *out);

#endif
