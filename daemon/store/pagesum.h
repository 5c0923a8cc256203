/* pagesum.h - an SQLite VFS that notices every flipped byte: each page of a database ends in a checksum of its content.
 *
 *     sqlite3_open_v2(path, &db, flags, dm_pagesum_vfs());
 *     int n = DM_PAGESUM_BYTES; sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &n);      // before a new file's first table
 *     dm_pagesum_expect(db, page_bytes);                                                                // the target of a copy: before its first page
 *
 * SQLite leaves the last bytes of a page to us when the header says so (byte 20 of the file). A page is summed when it is written to the database file and
 * checked when it is read from there; a mismatch is SQLITE_IOERR_DATA. The log (-wal) has sums of SQLite's own. Files made without the reserved bytes
 * are read and written as ever, unchecked. A program that writes such a file without this VFS (the sqlite3 command) leaves pages that
 * are refused afterwards.
 */
#ifndef DM_PAGESUM_H
#define DM_PAGESUM_H

#include <sqlite3.h>

enum { DM_PAGESUM_BYTES = 8 };

const char *dm_pagesum_vfs(void); /* registers it, once; stacked on the system's */
void dm_pagesum_expect(sqlite3 *db, int page_bytes);

#endif
