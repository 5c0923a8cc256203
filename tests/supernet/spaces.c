#include "tests/supernet/spaces.h"

#include "tests/check_main.h"

sn_space *space_load(const char *name)
{
    sn_space *sp = NULL;
    es_error err = {0};
    char path[256];
    snprintf(path, sizeof path, "examples/spaces/%s.yaml", name);
    ck_assert_ok_err(sn_space_load(es_test_source(path), &sp, &err), &err);
    return sp;
}

sn_space *space_parse(const char *text)
{
    es_yaml *doc;
    sn_space *sp;
    es_error err = {0};
    ck_assert_ok_err(es_yaml_parse("s.yaml", text, strlen(text), &doc, &err), &err);
    ck_assert_ok_err(sn_space_read(es_yaml_root(doc), &sp, &err), &err);
    es_yaml_destroy(&doc);
    return sp;
}
