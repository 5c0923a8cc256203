#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"
#include "supernet/version/version.h"

enum { HEAD_BYTES_MAX = 64 << 20, ALIGN = 8 };
static const size_t FILE_BYTES_MAX = (size_t)64 << 30;

static const char *const type_names[KN_DTYPE_COUNT] = {
    [KN_F32] = "F32", [KN_BF16] = "BF16", [KN_I32] = "I32", [KN_U8] = "U8"};

static char *head_text(const sn_version *v)
{
    es_json j;
    size_t at = 0;
    es_json_begin(&j, 0);
    es_json_object(&j, NULL);
    es_json_object(&j, "__metadata__");
    es_json_str(&j, "kind", v->kind);
    if (v->meta)
        es_json_str(&j, "espalier", v->meta);
    es_json_end(&j);
    for (int i = 0; i < v->count; i++) {
        const sn_array *a = &v->arrays[i];
        es_json_object(&j, a->name);
        es_json_str(&j, "dtype", type_names[a->dtype]);
        es_json_array(&j, "shape");
        for (int k = 0; k < a->shape.rank; k++)
            es_json_i64(&j, NULL, a->shape.d[k]);
        es_json_end(&j);
        es_json_array(&j, "data_offsets");
        es_json_i64(&j, NULL, (int64_t)at);
        es_json_i64(&j, NULL, (int64_t)(at + a->bytes));
        es_json_end(&j);
        es_json_end(&j);
        at += a->bytes;
    }
    es_json_end(&j);
    return es_json_finish(&j);
}

es_status sn_safetensors_format(const sn_version *v, char **bytes, size_t *size, es_error *err)
{
    char *head = head_text(v);
    size_t text = strlen(head), padded = (text + ALIGN - 1) / ALIGN * ALIGN, at = ALIGN + padded;
    *size = at;
    for (int i = 0; i < v->count; i++)
        *size += v->arrays[i].bytes;
    *bytes = malloc(*size);
    if (!*bytes) {
        free(head);
        return es_fail(err, ES_NO_MEMORY, v->kind, "%zu bytes for a safetensors file", *size);
    }
    for (int i = 0; i < ALIGN; i++)
        (*bytes)[i] = (char)((uint64_t)padded >> (8 * i) & 0xff);
    memcpy(*bytes + ALIGN, head, text);
    memset(*bytes + ALIGN + text, ' ', padded - text); /* the format pads its head with spaces */
    for (int i = 0; i < v->count; i++) {
        memcpy(*bytes + at, v->arrays[i].data, v->arrays[i].bytes);
        at += v->arrays[i].bytes;
    }
    free(head);
    return ES_OK;
}

es_status sn_version_write_safetensors(const sn_version *v, const char *path, es_error *err)
{
    char *bytes = NULL;
    size_t size = 0;
    es_status s;
    ES_GOTO(sn_safetensors_format(v, &bytes, &size, err));
    ES_GOTO(es_file_write(path, bytes, size, err));
fail:
    free(bytes);
    return s;
}

static es_status read_dtype(const char *name, const char *array, const char *text, kn_dtype *out, es_error *err)
{
    for (int i = 0; i < KN_DTYPE_COUNT; i++)
        if (text && strcmp(text, type_names[i]) == 0) {
            *out = (kn_dtype)i;
            return ES_OK;
        }
    return es_fail(err, ES_UNSUPPORTED, name, "array %s has element type %s: supported are F32, BF16, I32 and U8",
                   array, text ? text : "(none)");
}

/* One tensor of the head. `data` holds `have` bytes; *covered counts what arrays have claimed. */
static es_status read_array(const char *name, const char *array, const json_t *a, const uint8_t *data, size_t have,
                            size_t *covered, sn_version *v, es_error *err)
{
    const json_t *shape = json_object_get(a, "shape"), *offsets = json_object_get(a, "data_offsets");
    const json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    kn_dtype t = KN_F32;
    kn_shape sh = {.rank = 0, .d = {1, 1, 1, 1, 1}};
    ES_RETURN(read_dtype(name, array, json_string_value(json_object_get(a, "dtype")), &t, err));
    if (!json_is_array(shape) || json_array_size(shape) > KN_RANK_MAX)
        return es_fail(err, ES_INVALID, name, "array %s: its shape is no list of at most %d sizes", array, KN_RANK_MAX);
    uint64_t count = 1;
    for (size_t i = 0; i < json_array_size(shape); i++) {
        const json_t *d = json_array_get(shape, i);
        json_int_t n = json_integer_value(d);
        if (!json_is_integer(d) || n < 0 || n > INT32_MAX || (n && count > (uint64_t)INT64_MAX / 8 / (uint64_t)n))
            return es_fail(err, ES_INVALID, name, "array %s: size %zu of its shape is out of range", array, i);
        sh.d[sh.rank++] = (int32_t)n;
        count *= (uint64_t)n;
    }
    if (!json_is_integer(from) || !json_is_integer(to) || json_array_size(offsets) != 2 ||
        json_integer_value(from) < 0 || json_integer_value(to) < json_integer_value(from) ||
        (uint64_t)json_integer_value(to) > have)
        return es_fail(err, ES_CORRUPT, name,
                       "array %s: its data_offsets do not lie in the %zu bytes of data: truncated", array, have);
    size_t start = (size_t)json_integer_value(from), bytes = (size_t)json_integer_value(to) - start;
    if (bytes != count * kn_dtype_bytes(t))
        return es_fail(err, ES_CORRUPT, name, "array %s: %zu bytes of data, its shape needs %" PRIu64, array, bytes,
                       count * kn_dtype_bytes(t));
    if (bytes > have - *covered) /* overlapping arrays would unpack to more than the file holds */
        return es_fail(err, ES_CORRUPT, name, "array %s: its data overlap those of another", array);
    *covered += bytes;
    return sn_version_add(v, array, t, &sh, data + start, err);
}

/* The head, parsed; *data is what follows. */
static es_status read_head(const char *name, const uint8_t *p, size_t size, json_t **root, size_t *data, es_error *err)
{
    uint64_t length = 0;
    json_error_t je;
    if (size < ALIGN)
        return es_fail(err, ES_CORRUPT, name, "truncated: %zu bytes, a safetensors file starts with 8", size);
    for (int i = 0; i < ALIGN; i++)
        length |= (uint64_t)p[i] << (8 * i);
    if (length > size - ALIGN || length > HEAD_BYTES_MAX)
        return es_fail(err, ES_CORRUPT, name, "truncated: its head of %" PRIu64 " bytes does not fit into %zu", length,
                       size);
    *root = json_loadb((const char *)p + ALIGN, (size_t)length, JSON_REJECT_DUPLICATES, &je);
    if (!json_is_object(*root)) {
        json_decref(*root);
        *root = NULL;
        return es_fail(err, ES_CORRUPT, name, "its head is no JSON object: %s", je.text);
    }
    *data = ALIGN + (size_t)length;
    return ES_OK;
}

es_status sn_safetensors_parse(const char *name, const void *bytes, size_t size, sn_version **out, es_error *err)
{
    json_t *root = NULL, *value;
    const char *key;
    sn_version *v = NULL;
    size_t data = 0, covered = 0;
    es_status s;
    ES_GOTO(read_head(name, bytes, size, &root, &data, err));
    const json_t *meta = json_object_get(root, "__metadata__");
    const char *kind = json_string_value(json_object_get(meta, "kind"));
    v = sn_version_new(kind && strlen(kind) < sizeof v->kind ? kind : "subnet");
    sn_version_meta(v, json_string_value(json_object_get(meta, "espalier")));
    json_object_foreach(root, key, value)
    {
        if (strcmp(key, "__metadata__") != 0)
            ES_GOTO(read_array(name, key, value, (const uint8_t *)bytes + data, size - data, &covered, v, err));
    }
    if (covered != size - data)
        ES_GOTO(es_fail(err, ES_CORRUPT, name, "%zu bytes of data, its arrays describe %zu", size - data, covered));
    *out = v;
    v = NULL;
fail:
    sn_version_destroy(&v);
    json_decref(root);
    return s;
}

es_status sn_version_read_safetensors(const char *path, sn_version **out, es_error *err)
{
    char *bytes = NULL;
    size_t size = 0;
    es_status s;
    ES_GOTO(es_file_read(path, FILE_BYTES_MAX, &bytes, &size, err));
    ES_GOTO(sn_safetensors_parse(path, bytes, size, out, err));
fail:
    free(bytes);
    return s;
}
