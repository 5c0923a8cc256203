/* devices.h - one process for each device: `--device auto` and lists such as `--device cuda:0,cuda:1`.
 *
 *     wk_devices d; ES_RETURN(wk_devices_read("auto", &d, err));     // every GPU that will do, or the processor where there is none
 *     if (d.n > 1)
 *         return wk_devices_run(&d, argc, argv);                      // until told to stop; the exit status
 *
 * A process of its own each, because a CUDA error is for good: only the death of the process clears it. One that dies is started again, after a second first, then after
 * twice as long each time up to half a minute; one that lived for a minute starts from a second again. Wrong usage (exit 2) ends all. SIGTERM and SIGINT go to
 * every process, each of which hands its job back; a second one too. They end when this process is killed.
 */
#ifndef WK_DEVICES_H
#define WK_DEVICES_H

#include "base/status.h"

enum { WK_DEVICES_MAX = 64, WK_DEVICE_NAME = 32 };

typedef struct wk_devices {
    int n;
    char name[WK_DEVICES_MAX][WK_DEVICE_NAME];
} wk_devices;

es_status wk_devices_read(const char *text, wk_devices *out, es_error *err) ES_MUST_CHECK;
/* Runs this program once for each device with the given arguments and `--device NAME`; `--name` and `--cache` get the device's name appended. */
int wk_devices_run(const wk_devices *d, int argc, char **argv);

#endif
