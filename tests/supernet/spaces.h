/* spaces.h - spaces for tests; a mistake in one ends the test with its message.
 *
 *     sn_space *sp = space_load("mbconv32");               // examples/spaces/mbconv32.yaml
 *     sn_space *sp = space_parse("input: 8x8x1\nstages: ...");
 *     sn_space_destroy(&sp);
 */
#ifndef ES_TESTS_SUPERNET_SPACES_H
#define ES_TESTS_SUPERNET_SPACES_H

#include "supernet/space/space.h"

sn_space *space_load(const char *name);
sn_space *space_parse(const char *text);

#endif
