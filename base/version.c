#include "base/version.h"

const char *es_version(void) { return ESPALIER_VERSION; }
