"""Programs killed, stopped and restarted at any moment: the result is that of an undisturbed run.

    e2e_faults.py [--kills N] [--seed S] [TEST...]      killed_at_random with N kills (default 10); the seed is printed
"""
import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import time

from rig import check, main, say


def reference(rig, path):
    """The undisturbed result, through the same coordinator."""
    search = rig.submit(path)
    rig.wait_done(search)
    return rig.result(search, "undisturbed")


def running_step(rig, search):
    """(job, step) of a running training job, or None."""
    for job in rig.ask("show", search)["jobs"]:
        if job["state"] == "running" and job["kind"] == "train.supernet" and job["step"]:
            return job["id"], job["step"]
    return None


def killed_worker_costs_one_slice(rig):
    path = rig.search("small", epochs=150, slice_steps=50)
    coordinator = rig.coordinator(lease_ms=1500)
    worker = rig.worker()
    want = reference(rig, path)
    search = rig.submit(path)
    kills = 0
    while kills < 2:
        rig.wait(lambda: running_step(rig, search) or rig.state(search) == "done", 60, "training")
        check(rig.state(search) != "done", "killed in time")
        worker.kill()
        worker.wait()
        kills += 1
        worker = rig.worker()
    rig.wait_done(search)
    check(rig.result(search, "killed") == want, "the same result after %d kills" % kills)
    lost = [l for l in rig.ask("logs", search)["logs"] if l["outcome"] == "lost"]
    check(lost, "lost attempts are told apart from failed ones")
    coordinator.send_signal(signal.SIGTERM)
    check(rig.ends(coordinator) == 0, "the coordinator ends cleanly")


def killed_coordinator_goes_on(rig):
    path = rig.search("small", epochs=20)
    coordinator = rig.coordinator()
    rig.worker()
    rig.worker()
    want = reference(rig, path)
    search = rig.submit(path)
    rng = random.Random(int(os.environ.get("ESPALIER_SEED", "5")))
    kills = 0
    while kills < 8:
        time.sleep(rng.random() * 0.4)  # any moment
        coordinator.kill()
        coordinator.wait()
        kills += 1
        coordinator = rig.coordinator()
        if rig.state(search) == "done":
            break
    rig.wait_done(search)
    say("        %d kills" % kills)
    check(rig.result(search, "killed") == want, "the same result after %d kills of the coordinator" % kills)


def stopped_worker_loses_its_lease(rig):
    path = rig.search("small", epochs=150, slice_steps=50)
    rig.coordinator(lease_ms=1200)
    slow = rig.worker()
    want = reference(rig, path)
    search = rig.submit(path)
    rig.wait(lambda: running_step(rig, search), 60, "training")
    job = running_step(rig, search)[0]
    slow.send_signal(signal.SIGSTOP)
    rig.worker()
    rig.wait(lambda: any(l["outcome"] == "lost" for l in rig.ask("logs", search, "--job", str(job))["logs"]), 30, "the lease to be lost")
    slow.send_signal(signal.SIGCONT)  # it comes back and offers what is no longer its own
    rig.wait_done(search)
    check(rig.result(search, "stopped") == want, "the same result")
    rig.wait(lambda: sum(w["state"] in ("idle", "busy") for w in rig.ask("workers")["workers"]) == 2, 20, "both workers to be in service")


def stopped_worker_hands_back(rig):
    path = rig.search("small", epochs=5000, slice_steps=100000, evaluations=8)
    rig.coordinator(lease_ms=60000)
    worker = rig.worker()
    search = rig.submit(path)
    rig.wait(lambda: (running_step(rig, search) or (0, 0))[1] > 3, 60, "training")
    worker.send_signal(signal.SIGTERM)
    check(rig.ends(worker, 20) == 0, "it ends cleanly")
    jobs = [j for j in rig.ask("show", search)["jobs"] if j["kind"] == "train.supernet"]
    check(jobs[0]["state"] == "ready" and jobs[0]["step"] > 3 and jobs[0]["failures"] == 0, "handed back where it was: %s" % json.dumps(jobs))
    check("no worker is connected" in rig.good("why", str(jobs[0]["id"])), "why says so")


def long_slices_are_cut_by_time(rig):
    with open(rig.search("timed", epochs=100, slice_steps=100000, evaluations=8)) as f:
        text = f.read()
    path = rig.write("timed.yaml", text.replace("slice_steps:", "slice_seconds: 0.1, slice_steps:"))
    rig.coordinator()
    rig.worker()
    search = rig.submit(path)
    rig.wait_done(search)
    saved = [l for l in rig.ask("logs", search)["logs"] if l["outcome"] == "preempted"]
    check(len(saved) >= 2, "a training of one long slice was saved in between: %d times" % len(saved))


class Chaos:
    """A coordinator and workers that are killed at moments that a seed chooses, and started again at once."""

    def __init__(self, rig, seed, workers):
        self.rig, self.rng, self.count = rig, random.Random(seed), collections.Counter()
        self.coordinator = self.start_coordinator(True)
        self.workers = [self.start_worker(i) for i in range(workers)]

    def start_coordinator(self, ready):
        # A job loses as many workers as the seed wants. Leases are short, so that the next worker comes soon.
        return self.rig.coordinator(lease_ms=800, more="losses_max: 0\ndrain_after: 0\nbackoff_ms: 10\n", ready=ready)

    def start_worker(self, i):
        return self.rig.worker("--cache", self.rig.path("cache-%d" % i))

    def size(self, name):
        try:
            st = os.stat(self.rig.path("state", name))
            return st.st_size, st.st_mtime_ns
        except OSError:
            return None

    def moment(self, seconds, *files):
        """Returns after so long, or as soon as one of the files changes: in the middle of what is written there."""
        before, end = [self.size(f) for f in files], time.monotonic() + seconds
        while time.monotonic() < end:
            if files and [self.size(f) for f in files] != before:
                return True
            time.sleep(0.0002 if files else max(0, end - time.monotonic()))
        return False

    def kill(self):
        victim = self.rng.choice(["coordinator", "worker"])
        when = self.rng.choice(["any moment", "any moment", "starting", "commit", "upload"])
        if when == "any moment":
            self.moment(self.rng.random() * 0.8)
        elif when == "commit" and not self.moment(1, "state.db-wal") or when == "upload" and not self.moment(1, "weights.db-wal"):
            when = "any moment"
        self.count[victim, when] += 1
        if victim == "worker":
            i = self.rng.randrange(len(self.workers))
            self.end(self.workers[i])
            self.workers[i] = self.start_worker(i)
            if when == "starting":
                self.moment(self.rng.random() * 0.1)
                self.end(self.workers[i])
                self.workers[i] = self.start_worker(i)
        else:
            self.end(self.coordinator)
            self.coordinator = self.start_coordinator(when != "starting")
            if when == "starting":
                self.moment(self.rng.random() * 0.03)
                self.end(self.coordinator)
                self.coordinator = self.start_coordinator(True)

    @staticmethod
    def end(p):
        check(p.poll() is None, "%s ended by itself with %s" % (p.args[0], p.poll()))
        p.kill()
        p.wait()

    def submit(self, path):
        """A client that submits while the coordinator is killed gets its search all the same."""
        submit = subprocess.Popen([self.rig.program("espalier"), "submit", path, "--endpoint", self.rig.endpoint], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, cwd=self.rig.dir)
        self.moment(self.rng.random() * 0.03)
        self.count["coordinator", "submitting"] += 1
        self.end(self.coordinator)
        self.coordinator = self.start_coordinator(True)
        out, why = submit.communicate(timeout=90)
        check(submit.returncode == 0, "submit: %s" % why)
        return out.split()[1]

    def kills(self):
        return sum(self.count.values())


def killed_at_random(rig):
    say("        seed %d, %d kills" % (ARGS.seed, ARGS.kills))
    path = rig.search("small", epochs=12, slice_steps=6, evaluations=16)
    chaos = Chaos(rig, ARGS.seed, workers=2)
    want = reference(rig, path)
    searches = []
    began = time.monotonic()
    while chaos.kills() < ARGS.kills:
        if not searches or rig.state(searches[-1]) == "done":
            searches.append(chaos.submit(path))
        chaos.kill()
    disturbed = time.monotonic() - began
    for i, search in enumerate(searches):
        rig.wait_done(search)
        check(rig.result(search, "killed-%d" % i) == want, "search %s: the same result" % search)
    outcomes = collections.Counter(l["outcome"] for s in searches for l in rig.ask("logs", s)["logs"])
    check("failed" not in outcomes, "nothing failed: %s" % outcomes)
    check(len(rig.ask("list")["searches"]) == len(searches) + 1, "each accepted search is there once")
    say("        %d kills in %.0f s (%s), %d searches, attempts: %s" % (
        chaos.kills(), disturbed, ", ".join("%s, %s: %d" % (*k, n) for k, n in sorted(chaos.count.items())), len(searches), dict(outcomes)))


parser = argparse.ArgumentParser()
parser.add_argument("--kills", type=int, default=10)
parser.add_argument("--seed", type=int, default=int(os.environ.get("ESPALIER_SEED", "5")))
parser.add_argument("tests", nargs="*")
ARGS = parser.parse_args()
sys.argv[1:] = ARGS.tests
main(killed_at_random, long_slices_are_cut_by_time, killed_worker_costs_one_slice, killed_coordinator_goes_on, stopped_worker_loses_its_lease, stopped_worker_hands_back)
