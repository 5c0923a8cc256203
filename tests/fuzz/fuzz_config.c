/* espalierd.yaml: any bytes are a configuration inside its limits, or a refusal that says where. */
#include <string.h>

#include "daemon/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dm_config c;
    es_error e;
    dm_config_default(&c);
    es_status s = dm_config_parse("fuzz.yaml", (const char *)data, size, &c, &e);
    if (s != ES_OK) {
        ES_ASSERT(e.code == s && e.where[0] && e.text[0]);
        return 0;
    }
    ES_ASSERT(c.controls >= 1 && c.controls <= DM_CONTROLS_MAX && memchr(c.dir, 0, sizeof c.dir));
    ES_ASSERT(c.coord.lease_ms >= 100 && c.coord.heartbeat_ms >= 20 && c.coord.failures_max >= 1);
    s = dm_config_check(&c, &e);
    ES_ASSERT(s == ES_OK || (e.code == s && e.where[0] && e.text[0]));
    return 0;
}
