#include "base/yaml.h"

#include "base/file.h"
#include "base/str.h"
#include "tests/check_main.h"

static es_yaml *parse(const char *text)
{
    es_yaml *doc = NULL;
    es_error e;
    ck_assert_ok_err(es_yaml_parse("s.yaml", text, strlen(text), &doc, &e), &e);
    return doc;
}

/* The whole message of a text that must be refused. */
static const char *refused(const char *text)
{
    static char line[700];
    es_yaml *doc = NULL;
    es_error e;
    ck_assert_status(es_yaml_parse("s.yaml", text, strlen(text), &doc, &e), ES_INVALID);
    ck_assert_ptr_null(doc);
    ck_assert_status(es_yaml_parse("s.yaml", text, strlen(text), &doc, NULL), ES_INVALID);
    return es_error_line(&e, line, sizeof line);
}

START_TEST(tree_and_places)
    {
        es_yaml *doc =
            parse("name: fashion\nspace:\n  stages:\n    - {width: [16, 24], stride: 2}\n    - width: '32'\n");
        const es_yaml_node *root = es_yaml_root(doc);
        ck_assert_int_eq(root->kind, ES_YAML_MAP);
        ck_assert_uint_eq(root->count, 2);
        ck_assert_str_eq(root->keys[1], "space");
        const es_yaml_node *stages = es_yaml_find(es_yaml_find(root, "space"), "stages");
        ck_assert_uint_eq(stages->count, 2);
        const es_yaml_node *width = es_yaml_find(stages->items[0], "width");
        ck_assert_str_eq(width->path, "space.stages[0].width");
        ck_assert_int_eq(width->line, 4);
        ck_assert_int_eq(width->column, 15);
        ck_assert_int_eq(width->key_column, 8);
        ck_assert_str_eq(width->items[1]->text, "24");
        ck_assert_str_eq(width->items[1]->path, "space.stages[0].width[1]");
        const es_yaml_node *quoted = es_yaml_find(stages->items[1], "width");
        ck_assert(quoted->quoted && !width->items[0]->quoted);
        ck_assert_ptr_null(es_yaml_find(root, "nothing"));
        ck_assert_ptr_null(es_yaml_find(NULL, "nothing"));
        ck_assert_ptr_null(es_yaml_find(width, "list"));
        ck_assert_str_eq(es_yaml_name(doc), "s.yaml");
        es_yaml_destroy(&doc);
        es_yaml_destroy(&doc);
    }
END_TEST

START_TEST(refusals_say_where_and_what)
    {
        ck_assert_str_eq(refused("a: 1\nb: 2\na: 3\n"), "s.yaml:3:1: the field \"a\" is given twice, first in line 1");
        ck_assert_str_eq(refused("a: &x 1\nb: *x\n"),
                         "s.yaml:1:4: anchors (&name) are not supported, write the value out");
        ck_assert_has(refused("a: *x\n"), "s.yaml:1:4: aliases");
        ck_assert_has(refused("a: !int 1\n"), "s.yaml:1:4: tags");
        ck_assert_str_eq(refused("a: 1\n---\nb: 2\n"), "s.yaml:2:1: a second document starts here, one is allowed");
        ck_assert_str_eq(refused(""), "s.yaml: the file is empty");
        ck_assert_str_eq(refused("# only a comment\n"), "s.yaml: the file is empty");
        ck_assert_has(refused("a: [1, 2\nb: 3\n"), "s.yaml:2:");
        ck_assert_has(refused("a: [1, 2\nb: 3\n"), "not valid YAML: ");
        ck_assert_has(refused("a:\n\t- 1\n"), "s.yaml:2:1: not valid YAML");
        ck_assert_has(refused("a: \xff\xfe\n"), "not valid UTF-8");
        ck_assert_has(refused("[1, 2]: x\n"), "a field name must be a word");
        ck_assert_has(refused("'': x\n"), "s.yaml:1:1: a field name may not be empty");
        ck_assert_has(refused("a: \"x\\0y\"\n"), "a text may not hold a zero byte");
    }
END_TEST

START_TEST(limits)
    {
        es_str s = ES_STR_INIT;
        for (int i = 0; i < 33; i++)
            es_str_add(&s, "[");
        for (int i = 0; i < 33; i++)
            es_str_add(&s, "]");
        ck_assert_has(refused(s.p), "s.yaml:1:33: lists and maps are nested more than 32 deep");
        s.p[s.len - 1] = '\0';
        es_yaml *doc = parse(s.p + 1);
        es_yaml_destroy(&doc);
        es_str_clear(&s);
        es_str_add(&s, "[");
        for (int i = 0; i < 100001; i++)
            es_str_add(&s, "1,");
        es_str_add(&s, "1]");
        ck_assert_has(refused(s.p), "more than 100000 values");
        es_str_clear(&s);
        for (int i = 0; i < 1001; i++)
            es_str_addf(&s, "k%d: 1\n", i);
        ck_assert_has(refused(s.p), "s.yaml:1001:1: a map has more than 1000 fields");
        es_str_clear(&s);
        while (s.len <= 1 << 20)
            es_str_add(&s, "# a comment that fills the file\n");
        ck_assert_has(refused(s.p), "at most 1048576 are allowed");
        es_str_free(&s);
    }
END_TEST

START_TEST(fields_are_checked)
    {
        static const char *const allowed[] = {"name", "seed", "space", NULL};
        es_error e;
        char line[700];
        es_yaml *doc = parse("name: x\nsede:\n  a: 3\n");
        ck_assert_status(es_yaml_check_keys(es_yaml_root(doc), allowed, &e), ES_INVALID);
        ck_assert_str_eq(es_error_line(&e, line, sizeof line),
                         "s.yaml:2:1: sede: unknown field \"sede\", did you mean \"seed\"?");
        es_yaml_destroy(&doc);
        doc = parse("name: x\nbanana: 3\n");
        ck_assert_status(es_yaml_check_keys(es_yaml_root(doc), allowed, &e), ES_INVALID);
        ck_assert_str_eq(e.text, "unknown field \"banana\", allowed are name, seed or space");
        ck_assert_status(es_yaml_check_keys(es_yaml_find(es_yaml_root(doc), "name"), allowed, &e), ES_INVALID);
        ck_assert_str_eq(e.where, "s.yaml:1:7: name");
        ck_assert_str_eq(e.text, "this is a single value, a map is expected");
        es_yaml_destroy(&doc);
        doc = parse("seed: 1\nname: x\n");
        ck_assert_ok(es_yaml_check_keys(es_yaml_root(doc), allowed, &e));
        es_yaml_destroy(&doc);
    }
END_TEST

START_TEST(values)
    {
        static const char *const kinds[] = {"sgd", "adam", "adamw", NULL};
        es_yaml *doc = parse("i: 500k\nf: 0.25\nb: yes\nk: adam\ns: 'text'\nn: -3\nempty: ''\n");
        const es_yaml_node *r = es_yaml_root(doc);
        es_error e;
        int64_t i = 1;
        double f = 1;
        bool b = false;
        int k = -1;
        const char *s = NULL;
        ck_assert_ok(es_yaml_get_i64(r, "i", 0, INT64_MAX, &i, &e));
        ck_assert_int_eq(i, 500000);
        ck_assert_ok(es_yaml_get_i64(r, "n", -5, 5, &i, &e));
        ck_assert_int_eq(i, -3);
        ck_assert_ok(es_yaml_get_f64(r, "f", 0, 1, &f, &e));
        ck_assert_double_eq(f, 0.25);
        ck_assert_ok(es_yaml_get_bool(r, "b", &b, &e));
        ck_assert(b);
        ck_assert_ok(es_yaml_get_enum(r, "k", kinds, &k, &e));
        ck_assert_int_eq(k, 1);
        ck_assert_ok(es_yaml_get_str(r, "s", &s, &e));
        ck_assert_str_eq(s, "text");
        ck_assert_ok(es_yaml_get_str(r, "empty", &s, &e));
        ck_assert_str_eq(s, "");
        /* absent: unchanged */
        ck_assert_ok(es_yaml_get_i64(r, "zzz", 0, 1, &i, &e));
        ck_assert_ok(es_yaml_get_f64(r, "zzz", 0, 1, &f, &e));
        ck_assert_ok(es_yaml_get_bool(r, "zzz", &b, &e));
        ck_assert_ok(es_yaml_get_enum(r, "zzz", kinds, &k, &e));
        ck_assert_ok(es_yaml_get_str(r, "zzz", &s, &e));
        ck_assert(i == -3 && f == 0.25 && b && k == 1 && s[0] == '\0');
        es_yaml_destroy(&doc);
    }
END_TEST

START_TEST(wrong_values_say_what_is_allowed)
    {
        static const char *const kinds[] = {"sgd", "adam", "adamw", NULL};
        es_yaml *doc =
            parse("i: 2.5\nbig: 11\nf: fast\nb: maybe\nk: adan\nz: zzzzzz\nq: '3'\nl: [1]\nnone:\nsmall: -1\n");
        const es_yaml_node *r = es_yaml_root(doc);
        es_error e;
        int64_t i = 7;
        double f = 7;
        bool b = false;
        int k = 7;
        const char *s;
        ck_assert_status(es_yaml_get_i64(r, "i", 0, 9, &i, &e), ES_INVALID);
        ck_assert_str_eq(e.where, "s.yaml:1:4: i");
        ck_assert_str_eq(e.text, "\"2.5\" is not a whole number");
        ck_assert_status(es_yaml_get_i64(r, "big", 0, 9, &i, &e), ES_INVALID);
        ck_assert_str_eq(e.text, "11 is out of range, 0 to 9 is allowed");
        ck_assert_status(es_yaml_get_i64(r, "small", 1, INT64_MAX, &i, &e), ES_INVALID);
        ck_assert_str_eq(e.text, "-1 is too small, at least 1 is allowed");
        ck_assert_status(es_yaml_get_i64(r, "q", 0, 9, &i, &e), ES_INVALID);
        ck_assert_str_eq(e.text, "\"3\" (in quotes, so a text) is not a whole number");
        ck_assert_status(es_yaml_get_i64(r, "l", 0, 9, &i, &e), ES_INVALID);
        ck_assert_str_eq(e.text, "this is a list, a whole number is expected");
        ck_assert_status(es_yaml_get_i64(r, "none", 0, 9, &i, &e), ES_INVALID);
        ck_assert_str_eq(e.text, "the value is missing, a whole number is expected");
        ck_assert_status(es_yaml_get_f64(r, "f", 0, 1, &f, &e), ES_INVALID);
        ck_assert_str_eq(e.text, "\"fast\" is not a number");
        ck_assert_status(es_yaml_get_f64(r, "big", 0, 0.5, &f, &e), ES_INVALID);
        ck_assert_str_eq(e.text, "11 is out of range, 0 to 0.5 is allowed");
        ck_assert_status(es_yaml_get_bool(r, "b", &b, &e), ES_INVALID);
        ck_assert_str_eq(e.text, "\"maybe\" is not true or false");
        ck_assert_status(es_yaml_get_enum(r, "k", kinds, &k, &e), ES_INVALID);
        ck_assert_has(e.text, "did you mean \"adam\"?");
        ck_assert_has(e.text, "sgd, adam or adamw");
        ck_assert_status(es_yaml_get_enum(r, "z", kinds, &k, &e), ES_INVALID);
        ck_assert_str_eq(e.text, "\"zzzzzz\" is not one of sgd, adam or adamw");
        ck_assert_status(es_yaml_get_str(r, "none", &s, &e), ES_INVALID);
        ck_assert_str_eq(e.text, "the value is missing, a text is expected");
        ck_assert_status(es_yaml_get_str(r, "l", &s, &e), ES_INVALID);
        ck_assert(i == 7 && f == 7 && !b && k == 7);
        es_yaml_destroy(&doc);
    }
END_TEST

START_TEST(files)
    {
        es_yaml *doc = NULL;
        es_error e;
        ck_assert_status(es_yaml_read("no-such.yaml", &doc, &e), ES_NOT_FOUND);
        ck_assert_str_eq(e.where, "no-such.yaml");
        const char *path = es_test_join(es_test_dir(), "a.yaml");
        ck_assert_ok(es_file_write(path, "a: 1\n", 5, &e));
        ck_assert_ok(es_yaml_read(path, &doc, &e));
        ck_assert_uint_eq(es_yaml_root(doc)->count, 1);
        es_yaml_destroy(&doc);
    }
END_TEST

START_TEST(long_file_names_keep_the_line)
    {
        char name[400];
        memset(name, 'd', sizeof name - 1);
        memcpy(name + sizeof name - 8, "/x.yaml", 8);
        es_yaml *doc = NULL;
        es_error e;
        ck_assert_ok(es_yaml_parse(name, "a: 1\n", 5, &doc, &e));
        es_yaml_fail(es_yaml_find(es_yaml_root(doc), "a"), &e, "bad");
        ck_assert_has(e.where, "/x.yaml:1:4: a");
        es_yaml_destroy(&doc);
    }
END_TEST

ES_TEST_MAIN("base/yaml", tree_and_places, refusals_say_where_and_what, limits, fields_are_checked, values,
             wrong_values_say_what_is_allowed, files, long_file_names_keep_the_line)
