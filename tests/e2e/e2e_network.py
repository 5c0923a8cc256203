"""The network between worker and coordinator: slow, cut, cut in the middle of messages, and silent without a word. The result stays the same.

Both sockets of the coordinator (control and weights) are moved aside, and a relay listens where the worker looks for them.
"""
import os
import selectors
import socket
import threading
import time

from rig import check, main, say


class Relay:
    """Passes bytes on between `path` and `to`, late, never, or until it is cut."""

    def __init__(self, path):
        self.to, self.delay, self.black, self.refusing, self.passed = path + ".real", 0.0, False, False, 0
        os.rename(path, self.to)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
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
            far = socket.socket(socket.AF_UNIX)
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
                        data = key.fileobj.recv(65536)
                        if not data:
                            return
                        black = black or self.black  # once silent, a connection stays silent
                        if self.delay:
                            time.sleep(self.delay)
                        if not black:
                            key.data.sendall(data)
                            self.passed += len(data)
            except (OSError, ValueError):
                pass
            finally:
                for s in (near, far):
                    s.close()

    def cut(self):
        """Every connection ends, whatever is half way."""
        with self.lock:
            pairs, self.open = self.open, []
        for pair in pairs:
            for s in pair:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class Line:
    """Both relays as one, with a search that is always under way beyond it."""

    def __init__(self, rig, path):
        self.rig, self.path = rig, path
        self.relays = [Relay(rig.path("control")), Relay(rig.path("data.sock"))]
        self.worker_endpoint, rig.endpoint = rig.endpoint, rig.endpoint + ".real"  # clients go directly
        self.searches = []

    def set(self, **how):
        for r in self.relays:
            for name, value in how.items():
                setattr(r, name, value)

    def cut(self):
        for r in self.relays:
            r.cut()

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
    line = Line(rig, path)
    rig.worker_endpoint = line.worker_endpoint
    line.worker = rig.start("espalier-worker", line.worker_endpoint, "--device", "cpu:1", "--cache", rig.path("cache"))
    first = rig.submit(path)
    rig.wait_done(first)
    return line, rig.result(first, "undisturbed")


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


def silent(rig):
    """No end of connection is ever seen; only that nobody answers. New connections work: the worker has to make one by itself."""
    line, want = with_line(rig)
    line.training()
    line.set(black=True)
    before = line.lost()
    rig.wait(lambda: line.lost() > before or rig.state(line.searches[-1]) == "done", 30, "the lease to be lost")
    line.set(black=False)
    line.training()
    line.goes_on("silence", 60)
    finish(rig, line, want)


main(slow_and_cut, silent)
