"""A wall clock that jumps by days, under all programs at once: leases and uploads do not mind, and what waits for a time does not wait for days."""
import os
import struct
import subprocess
import time

from rig import check, main

DAY_MS = 86400000
# Under LD_PRELOAD: the wall clock of the C library, moved by the milliseconds that stand in the file CLOCK_OFFSET. The monotonic clock is left alone.
SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void begin(void)
{
    int fd = open(getenv("CLOCK_OFFSET"), O_RDONLY);
    void *p = mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        _exit(99);
    offset = p;
}

int clock_gettime(clockid_t id, struct timespec *t)
{
    int rc = (int)syscall(SYS_clock_gettime, id, t);
    if (rc == 0 && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        t->tv_sec += *offset / 1000;
    return rc;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec s;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &s);
    t->tv_sec = s.tv_sec;
    t->tv_usec = s.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec s;
    clock_gettime(CLOCK_REALTIME, &s);
    if (out)
        *out = s.tv_sec;
    return s.tv_sec;
}
"""


class Clock:
    def __init__(self, rig):
        source, self.shim, self.file = rig.write("shim.c", SHIM), rig.path("shim.so"), rig.path("offset")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", self.shim, source], check=True)
        with open(self.file, "wb") as f:
            f.write(bytes(8))
        preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), self.shim]))
        self.env = {**os.environ, "LD_PRELOAD": preload, "CLOCK_OFFSET": self.file}

    def jump(self, days):
        """To so many days from now."""
        with open(self.file, "r+b") as f:
            f.write(struct.pack("<q", days * DAY_MS))


def attempts(rig, search):
    return sum(j["attempt"] for j in rig.ask("show", search)["jobs"])


def jumps(rig):
    clock = Clock(rig)
    path = rig.search("small", epochs=60, slice_steps=10)
    rig.coordinator(lease_ms=3000, env=clock.env)
    rig.worker("--cache", rig.path("cache"), env=clock.env)
    first = rig.submit(path)
    rig.wait_done(first)
    second = rig.submit(path)
    days = [1, 0, -1, 2, -30, 400, 0]
    seen = set()
    while rig.state(second) != "done":
        days.append(days.pop(0))
        clock.jump(days[0])
        seen.add(days[0])
        before = attempts(rig, second)
        rig.wait(lambda n=before: rig.state(second) == "done" or attempts(rig, second) > n, 60, "progress %d days off" % days[0])
    check(len(seen) == 6, "it jumped to every place: %s" % seen)
    check(rig.result(second, "jumped") == rig.result(first, "steady"), "the same result")
    for search in (first, second):
        bad = [l for l in rig.ask("logs", search)["logs"] if l["outcome"] in ("lost", "failed")]
        check(not bad, "no lease ended and no upload failed: %s" % bad)


def waiting_goes_on(rig):
    """A job that failed waits a little before it is tried again; a clock that goes back a day meanwhile does not make that a day."""
    clock = Clock(rig)
    rig.coordinator(lease_ms=3000, more="backoff_ms: 1500\nfailures_max: 8\ndrain_after: 0\n", env=clock.env)
    rig.worker(env=clock.env)
    images = rig.path("data", "train-images-idx3-ubyte")
    with open(images, "rb") as f:
        good = f.read()
    with open(images, "wb") as f:
        f.write(b"\x1f\x8b\x08 damaged on its way, as gzip notices")
    search = rig.submit(rig.search("small"))
    rig.wait(lambda: any(l["outcome"] == "failed" for l in rig.ask("logs", search)["logs"]), 60, "a failure")
    clock.jump(-1)
    with open(images, "wb") as f:
        f.write(good)
    began = time.monotonic()
    rig.wait_done(search, 60)
    check(time.monotonic() - began < 60, "soon")


main(jumps, waiting_goes_on)
