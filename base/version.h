/* version.h - which release this is: the one number, of project() in CMakeLists.txt.
 *
 *     printf("espalierd %s\n", es_version());
 */
#ifndef ES_VERSION_H
#define ES_VERSION_H

const char *es_version(void); /* "0.1.0" */

#endif
