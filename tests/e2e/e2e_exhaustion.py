"""A full disk, damaged databases and no descriptors: the cause is said, nothing that was accepted is lost, and with the cause gone it goes on."""
import os
import random
import resource
import shutil
import socket
import subprocess

from rig import check, main, say


class SmallDisk:
    """A tmpfs of its own under the rig; fill() leaves it no room at all."""

    def __init__(self, rig, name, size):
        self.dir = rig.path(name)
        os.makedirs(self.dir)
        self.mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + size, "tmpfs", self.dir], capture_output=True).returncode == 0
        if not self.mounted:
            say("        SKIPPED: cannot mount a small disk here")

    def __enter__(self):
        return self if self.mounted else None

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.dir], check=not _, capture_output=True)

    def fill(self):
        with open(os.path.join(self.dir, "ballast"), "ab", buffering=0) as f:
            for size in (1 << 20, 4096, 1):
                try:
                    while f.write(bytes(size)) == size:
                        pass
                except OSError:
                    pass

    def empty(self):
        os.unlink(os.path.join(self.dir, "ballast"))


def disk_of_the_coordinator(rig):
    with SmallDisk(rig, "state", "40m") as disk:
        if not disk:
            return
        path = rig.search("small", epochs=60, slice_steps=10)
        rig.coordinator(lease_ms=2000)
        rig.worker()
        first = rig.submit(path)
        rig.wait_done(first)
        want = rig.result(first, "undisturbed")
        second = rig.submit(path)
        rig.wait(lambda: any(j["attempt"] > 2 for j in rig.ask("show", second)["jobs"]), 60, "two slices to be done")
        for _ in range(2):
            disk.fill()
            r = rig.client("submit", path, timeout=120)
            check(r.returncode == 1, "nothing is accepted: %s%s" % (r.stdout, r.stderr))
            check("the disk is full" in r.stderr and "state.db" in r.stderr and "make room" in r.stderr, "says why: %s" % r.stderr)
            check("search %s" % second not in r.stderr, r.stderr)
            disk.empty()
            rig.wait(lambda: rig.client("submit", path).returncode == 0, 30, "a search to be accepted again")
        searches = rig.ask("list")["searches"]
        check(len(searches) == 4, "what was accepted is there, what was refused is not: %s" % searches)
        for search in searches:
            rig.wait_done(str(search["id"]))
            check(rig.result(str(search["id"]), "after") == want, "the same result")


def disk_of_a_worker(rig):
    with SmallDisk(rig, "cache", "1m") as disk:
        if not disk:
            return
        path = rig.search("small", epochs=100)
        rig.coordinator()
        plain = rig.worker()
        first = rig.submit(path)
        rig.wait_done(first)
        second = rig.submit(path)
        rig.wait(lambda: any(j["attempt"] > 2 for j in rig.ask("show", second)["jobs"]), 60, "two slices to be done")
        plain.kill()
        disk.fill()
        rig.worker("--cache", disk.dir)  # which has to fetch what the other one trained
        rig.wait_done(second)
        check(rig.result(second, "full") == rig.result(first, "plain"), "the same result")
        with open(rig.path("worker-2.log")) as f:
            check("not kept in the cache" in f.read(), "the worker says that it keeps nothing")


def copy_state(rig, name, change):
    """The databases as a coordinator left them, one of them changed."""
    shutil.rmtree(rig.path("copy"), ignore_errors=True)
    shutil.copytree(rig.path("state"), rig.path("copy"))
    with open(rig.path("copy", name), "r+b") as f:
        change(f, os.fstat(f.fileno()).st_size)


def run_on_copy(rig, *args):
    return subprocess.run([rig.program("espalierd"), "-c", rig.path("copy.yaml"), *args], capture_output=True, text=True, timeout=60, cwd=rig.dir)


def damaged_databases(rig):
    coordinator = rig.coordinator()
    worker = rig.worker()
    search = rig.submit(rig.search("small"))
    rig.wait_done(search)
    rig.good("backup")
    for p in (worker, coordinator):
        p.terminate()
        check(rig.ends(p) == 0, "ends cleanly")
    with open(rig.path("espalierd.yaml")) as f:
        rig.write("copy.yaml", f.read().replace("/state", "/copy"))
    for name in ("state.db", "weights.db"):
        for what, change in (("half of it", lambda f, n: f.truncate(n // 2)),
                             ("all but a page", lambda f, n: f.truncate(n - 4096)),
                             ("no head", lambda f, n: f.write(bytes(100))),
                             ("a page of noise", lambda f, n: (f.seek(8192), f.write(random.Random(3).randbytes(4096))))):
            copy_state(rig, name, change)
            for args in ((), ("--check",)):
                r = run_on_copy(rig, *args)
                check(r.returncode == 1, "%s, %s: exit %d: %s%s" % (name, what, r.returncode, r.stdout, r.stderr))
                check(name in r.stderr and ("damaged" in r.stderr or "not an Espalier" in r.stderr), "%s, %s: says %s" % (name, what, r.stderr))
                if "damaged" in r.stderr:
                    check(args or "the last good backup is " + rig.path("copy", "backups") in r.stderr, "%s, %s: says what to do: %s" % (
                        name, what, r.stderr))


def flipped_bytes(rig):
    """Wherever a byte is flipped: refused with a cause, or it answers; it never falls over."""
    coordinator = rig.coordinator()
    worker = rig.worker()
    search = rig.submit(rig.search("small"))
    rig.wait_done(search)
    second = rig.submit(rig.search("more", epochs=2000, slice_steps=100000))
    rig.wait(lambda: any(j["state"] == "running" for j in rig.ask("show", second)["jobs"]), 30, "a job to run")
    worker.kill()
    coordinator.terminate()  # which leaves nothing in the logs beside the databases
    check(rig.ends(coordinator) == 0, "ends cleanly")
    with open(rig.path("espalierd.yaml")) as f:
        rig.write("copy.yaml", f.read().replace("/state", "/copy"))
    refused = 0
    for seed in range(30):
        rng = random.Random(seed)

        def flip(f, n, rng=rng):
            for _ in range(1 + seed % 8):
                at = rng.randrange(n)
                f.seek(at)
                byte = f.read(1)[0]
                f.seek(at)
                f.write(bytes([byte ^ 1 << rng.randrange(8)]))
        copy_state(rig, rng.choice(("state.db", "state.db", "weights.db")), flip)
        log = "copy-%d.log" % seed
        p = rig.start("espalierd", "-c", rig.path("copy.yaml"), log=log)

        def settled(p=p, log=log):
            with open(rig.path(log)) as f:
                return p.poll() is not None or f.read().startswith("ready")
        rig.wait(settled, 30, "readiness or an end, seed %d" % seed)
        if p.poll() is None:
            for question in (("show", search), ("show", second), ("pareto", search), ("logs", second), ("workers",)):
                r = rig.client(*question)
                check(r.returncode in (0, 1), "seed %d: %s: %s" % (seed, question, r.stderr))
            check(p.poll() is None, "seed %d: the coordinator ended with %s" % (seed, p.poll()))
            p.terminate()
        else:
            refused += 1
        check(rig.ends(p) in (0, 1), "seed %d: it ended with %d" % (seed, p.returncode))
    say("        30 damaged databases, %d refused at the start" % refused)


def limited(n):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))


def descriptors(rig):
    """With too few a program says so and ends; when peers use up the rest, those connected are served, and new ones when there is room again."""
    for program, args in (("espalierd", ("-c", rig.write("few.yaml", "dir: %s\ncontrol: ipc://%s\ndata: ipc://%s\n" % (
            rig.path("few"), rig.path("few.c"), rig.path("few.d"))),)), ("espalier-worker", (rig.endpoint,)),
                          ("espalier", ("list", "--endpoint", rig.endpoint))):
        for n in (4, 8, 16, 24):
            r = subprocess.run([rig.program(program), *args], capture_output=True, text=True, timeout=60, cwd=rig.dir, preexec_fn=limited(n))
            check(r.returncode == 1 and "descriptors" in r.stderr, "%s with %d: exit %d: %s" % (program, n, r.returncode, r.stderr))
    path = rig.search("small", epochs=40)
    coordinator = rig.coordinator(preexec_fn=limited(96))
    rig.worker()
    first = rig.submit(path)
    rig.wait_done(first)
    second = rig.submit(path)
    crowd = []
    for _ in range(200):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(1)
        try:
            s.connect(rig.path("control"))
        except OSError:
            break
        crowd.append(s)

    def said(text):
        with open(rig.path("espalierd.log")) as f:
            return text in f.read()
    rig.wait(lambda: said("no file descriptors are left"), 20, "the coordinator to say what it lacks")
    check(coordinator.poll() is None, "it is still there")
    for s in crowd:
        s.close()
    rig.wait(lambda: said("file descriptors are free again"), 20, "the coordinator to say that it is over")
    rig.wait_done(second)
    check(rig.result(second, "crowded") == rig.result(first, "alone"), "the same result")


main(disk_of_the_coordinator, disk_of_a_worker, damaged_databases, flipped_bytes, descriptors)
