#include "daemon/reload.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "daemon/settings.h"

void dm_reload_merge(dm_config *running, const dm_config *fresh, dm_reload_result *out)
{
    memset(out, 0, sizeof *out);
    size_t used = 0;
    for (const dm_setting *s = dm_settings; s->name; s++) {
        char old[80], new[80];
        if (dm_setting_same(s, running, fresh))
            continue;
        dm_setting_show(s, running, old);
        dm_setting_show(s, fresh, new);
        if (s->live)
            es_log(ES_LOG_INFO, "setting changed name=%s old=%s new=%s", s->name, old, new);
        else
            es_log(ES_LOG_WARN, "setting needs a restart name=%s old=%s new=%s", s->name, old, new);
        out->changed += s->live;
        out->waiting += !s->live;
        if (s->live)
            dm_setting_take(s, running, fresh);
        else if (used < sizeof out->text)
            used += (size_t)snprintf(out->text + used, sizeof out->text - used, "%s%s", used ? ", " : "", s->name);
    }
    char waiting[sizeof out->text];
    memcpy(waiting, out->text, sizeof waiting);
    snprintf(out->text, sizeof out->text, "%d settings changed%s%.300s", out->changed,
             out->waiting ? "; these need a restart: " : "", waiting);
}
