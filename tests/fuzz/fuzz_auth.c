/* authorized_keys from anybody: a table that is consistent, or a refusal that says where. */
#include <stdlib.h>
#include <string.h>

#include "daemon/auth/authorized.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dm_auth_table t;
    es_error e;
    es_status s = dm_auth_table_parse("keys", (const char *)data, size, &t, &e);
    if (s != ES_OK) {
        ES_ASSERT(t.keys == NULL && t.n == 0 && e.code == s && e.where[0] && e.text[0]);
        return 0;
    }
    for (int i = 0; i < t.n; i++) {
        const dm_key_line *k = &t.keys[i];
        ES_ASSERT(dm_auth_table_find(&t, k->pub) == k && dm_key_name_valid(k->name));
        ES_ASSERT(k->role >= DM_ROLE_CLIENT && k->role <= DM_ROLE_ADMIN);
    }
    dm_auth_table_free(&t);
    return 0;
}
