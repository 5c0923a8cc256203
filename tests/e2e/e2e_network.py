"""The network between worker and coordinator: slow, cut, cut in the middle of messages, with bytes that change on the way, and silent without a word. The result
stays the same.

Both sockets of the coordinator (control and weights) are moved aside, and a relay listens where the worker looks for them. Over tcp they stay where they are, and a
shim in the worker turns its connections to the relays.
"""
import os
import random
import selectors
import signal
import socket
import struct
import subprocess
import threading
import time

import secure
from rig import check, main, say


class Relay:
    """Passes bytes on between `path` (a socket's path, or (host, port) for tcp) and `to`, late, in crumbs, changed, never, or until it is cut."""

    def __init__(self, path):
        self.delay, self.black, self.refusing, self.passed, self.crumb, self.garble, self.garbled = 0.0, False, False, 0, 65536, 0, 0
        self.family = socket.AF_INET if isinstance(path, tuple) else socket.AF_UNIX
        self.random = random.Random(7)
        self.listener = socket.socket(self.family)
        if self.family == socket.AF_UNIX:
            self.to = path + ".real"
            os.rename(path, self.to)
            self.listener.bind(path)
        else:
            self.to = path
            self.listener.bind((path[0], 0))
            self.port = self.listener.getsockname()[1]
        self.listener.listen(64)
        self.lock, self.open, self.held = threading.Lock(), [], []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.refusing:
                near.close()
                continue
            far = socket.socket(self.family)
            try:
                far.connect(self.to)
            except OSError:
                near.close()
                continue
            with self.lock:
                self.open.append((near, far))
            threading.Thread(target=self.passing, args=(near, far, self.black), daemon=True).start()

    def passing(self, near, far, black):
        with selectors.DefaultSelector() as events:
            events.register(near, selectors.EVENT_READ, far)
            events.register(far, selectors.EVENT_READ, near)
            try:
                while True:
                    for key, _ in events.select():
                        data = key.fileobj.recv(self.crumb)
                        if not data:
                            return
                        black = black or self.black  # once silent, a connection stays silent
                        if self.delay:
                            time.sleep(self.delay)
                        if self.garble and self.random.random() < self.garble:
                            at = self.random.randrange(len(data))
                            data = data[:at] + bytes([data[at] ^ 1 << self.random.randrange(8)]) + data[at + 1:]
                            self.garbled += 1
                        if not black:
                            key.data.sendall(data)
                            self.passed += len(data)
            except (OSError, ValueError):
                pass
            finally:
                for s in (near, far):
                    s.close()

    def cut(self, reset=False):
        """Every connection ends, whatever is half way; reset: with an RST."""
        with self.lock:
            pairs, self.open = self.open, []
        for pair in pairs:
            for s in pair:
                try:
                    if reset:
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class Line:
    """Both relays as one, with a search that is always under way beyond it."""

    def __init__(self, rig, path, relays):
        self.rig, self.path, self.relays, self.searches = rig, path, relays, []

    def set(self, **how):
        for r in self.relays:
            for name, value in how.items():
                setattr(r, name, value)

    def cut(self, reset=False):
        for r in self.relays:
            r.cut(reset)

    def training(self):
        if not self.searches or self.rig.state(self.searches[-1]) == "done":
            self.searches.append(self.rig.submit(self.path))
        self.rig.wait(self.under_way, 60, "a job to run")

    def under_way(self):
        return any(j["state"] == "running" for j in self.rig.ask("show", self.searches[-1])["jobs"]) or self.rig.state(self.searches[-1]) == "done"

    def lost(self):
        return sum(l["outcome"] == "lost" for s in self.searches for l in self.rig.ask("logs", s)["logs"])

    def goes_on(self, what, seconds=60):
        """Two slices or other jobs later, or the search is done."""
        def attempts():
            row = self.rig.ask("show", self.searches[-1])
            return 1 << 30 if row["search"]["state"] == "done" else sum(j["attempt"] for j in row["jobs"])
        before = attempts()
        self.rig.wait(lambda: attempts() >= before + 2 or before == 1 << 30, seconds, "work to go on after " + what)


def with_line(rig, epochs=100, slice_steps=20):
    path = rig.search("small", epochs=epochs, slice_steps=slice_steps)
    rig.coordinator(lease_ms=1500, more="losses_max: 0\nbackoff_ms: 10\n")
    line = Line(rig, path, [Relay(rig.path("control")), Relay(rig.path("data.sock"))])
    there, rig.endpoint = rig.endpoint, rig.endpoint + ".real"  # clients go directly
    line.worker = rig.start("espalier-worker", there, "--device", "cpu:1", "--cache", rig.path("cache"))
    return line, undisturbed(rig, path)


def undisturbed(rig, path):
    first = rig.submit(path)
    rig.wait_done(first)
    return rig.result(first, "undisturbed")


# Under LD_PRELOAD: connections to the ports in RELAYED ("5700:41000,5701:41001") go to the other one.
SHIM = r"""
#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int connect(int fd, const struct sockaddr *to, socklen_t n)
{
    struct sockaddr_in in;
    if (to && to->sa_family == AF_INET && n >= sizeof in) {
        memcpy(&in, to, sizeof in);
        for (char *p = getenv("RELAYED"), *next; p && *p; p = *next == ',' ? next + 1 : next) {
            long from = strtol(p, &next, 10), other = strtol(next + 1, &next, 10);
            if (ntohs(in.sin_port) == from)
                in.sin_port = htons((unsigned short)other);
        }
        return (int)syscall(SYS_connect, fd, &in, sizeof in);
    }
    return (int)syscall(SYS_connect, fd, to, n);
}
"""


def with_curve(rig):
    """The same over tcp with keys."""
    path = rig.search("small", epochs=60, slice_steps=20)
    p = secure.coordinator(rig, "losses_max: 0\nbackoff_ms: 10\n", lease_ms=1500)
    secure.authorise(rig, secure.keygen(rig, "ann", "client"), secure.keygen(rig, "gpu-1", "worker"))
    secure.reload(rig, p)
    secure.be(rig, "ann")
    ports = [int(e.rsplit(":", 1)[1]) for e in (rig.endpoint, rig.data)]
    line = Line(rig, path, [Relay(("127.0.0.1", port)) for port in ports])
    shim = rig.path("shim.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, rig.write("shim.c", SHIM)], check=True)
    env = {**os.environ, "LD_PRELOAD": " ".join(filter(None, [os.environ.get("LD_PRELOAD"), shim])),
           "RELAYED": ",".join("%d:%d" % (port, r.port) for port, r in zip(ports, line.relays))}
    line.coordinator, line.aborted = p, 0
    line.worker = rig.worker("--key", rig.path("home", "gpu-1", "worker.key"), "--cache", rig.path("cache"), env=env)

    def start_again():
        """A handshake with changed bits can make libzmq 4.3.4 end its process with an assertion of its own. As systemd would."""
        while line.worker.wait() == -signal.SIGABRT:
            line.aborted += 1
            line.worker = rig.worker("--key", rig.path("home", "gpu-1", "worker.key"), "--cache", rig.path("cache"), env=env)
    threading.Thread(target=start_again, daemon=True).start()
    return line, undisturbed(rig, path)


def finish(rig, line, want):
    check(line.worker.poll() is None, "the worker lives")
    for i, search in enumerate(line.searches):
        rig.wait_done(search)
        check(rig.result(search, "disturbed-%d" % i) == want, "the same result")


def slow_and_cut(rig):
    line, want = with_line(rig)
    line.training()
    line.set(delay=0.05)
    line.goes_on("a slow line")
    line.set(delay=0.0)
    for _ in range(25):  # every few moments, in the middle of whatever is under way
        line.training()
        before = sum(r.passed for r in line.relays)
        rig.wait(lambda n=before: sum(r.passed for r in line.relays) > n, 20, "bytes to pass")
        line.cut()
    line.goes_on("many cuts")
    line.training()
    line.set(refusing=True)  # longer than a lease
    line.cut()
    before = line.lost()
    rig.wait(lambda: line.lost() > before or rig.state(line.searches[-1]) == "done", 30, "the lease to be lost")
    line.set(refusing=False)
    line.goes_on("a cut longer than a lease")
    finish(rig, line, want)
    say("        %d searches, %d leases lost, %d KiB passed" % (len(line.searches), line.lost(), sum(r.passed for r in line.relays) >> 10))


def fall_silent(rig, line):
    """No end of connection is ever seen; only that nobody answers. New connections work: the worker has to make one by itself."""
    line.set(black=True)
    before = line.lost()
    rig.wait(lambda: line.lost() > before or rig.state(line.searches[-1]) == "done", 30, "the lease to be lost")
    line.set(black=False)
    line.training()
    line.goes_on("silence", 60)


def silent(rig):
    line, want = with_line(rig)
    line.training()
    fall_silent(rig, line)
    finish(rig, line, want)


def curve(rig):
    """Encrypted and authenticated, over a line that loses the connection, delays, passes crumbs, and changes bits: those CURVE must find."""
    line, want = with_curve(rig)
    check(all(r.passed > 0 for r in line.relays), "both connections of the worker go through the relays")
    line.training()
    line.set(delay=0.05)
    line.goes_on("a slow line")
    line.set(delay=0.0, crumb=997)
    line.goes_on("a line that passes crumbs")
    line.set(crumb=65536)
    for i in range(10):
        line.training()
        before = sum(r.passed for r in line.relays)
        rig.wait(lambda n=before: sum(r.passed for r in line.relays) > n, 20, "bytes to pass")
        line.cut(reset=i % 2 == 0)
    line.goes_on("many resets")
    line.training()
    line.set(garble=0.1)
    rig.wait(lambda: sum(r.garbled for r in line.relays) >= 6, 60, "bits to change")
    line.set(garble=0)
    check(line.coordinator.poll() is None, "the coordinator lives")
    line.goes_on("changed bits", 60)
    line.training()
    fall_silent(rig, line)
    finish(rig, line, want)
    check(line.coordinator.poll() is None, "the coordinator lives")
    say("        %d searches, %d leases lost, %d KiB passed, %d bits changed, %d times libzmq's own assertion ended the worker"
        % (len(line.searches), line.lost(), sum(r.passed for r in line.relays) >> 10, sum(r.garbled for r in line.relays), line.aborted))


main(slow_and_cut, silent, curve)
