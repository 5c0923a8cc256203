/* wal_look.h - what of a write-ahead log SQLite will not use, and whether that is a loss.
 *
 *     dm_wal_report r;
 *     dm_wal_look("DIR/state.db-wal", &r, err);        // before the database is opened: opening it makes the log whole again, by forgetting
 *     if (r.damaged) ...                               // r.lost_frames of r.lost_commits commits, which had been acknowledged, are dropped
 *
 * SQLite reads a log up to the first frame that is not as it was written and drops what follows without a word. Most often that is right: what was being written when
 * the process ended, or what an earlier log left in the file. But every commit is synced before the next one is written (synchronous=FULL), so whole frames behind
 * the end of a later commit say that what stands before them was once whole. Frames are chained by their checksums, each going on from the one before
 * (https://www.sqlite.org/fileformat2.html, "The WAL File Format"), which tells those of this log from leftovers of a transaction that was taken back.
 */
#ifndef DM_WAL_LOOK_H
#define DM_WAL_LOOK_H

#include "base/status.h"

typedef struct dm_wal_report {
    int64_t bytes;        /* of the file; 0: there is none */
    int64_t frames, used; /* whole frames in it; those up to the last commit that SQLite finds */
    bool header_bad;      /* nothing of it can be used, and whether that had been copied back cannot be known */
    bool damaged;         /* see above */
    int64_t bad_frame;    /* the first one that is not as it was written, from 1; 0: none */
    int64_t lost_frames, lost_commits; /* whole ones behind it, when damaged */
} dm_wal_report;

es_status dm_wal_look(const char *path, dm_wal_report *out, es_error *err) ES_MUST_CHECK;

#endif
