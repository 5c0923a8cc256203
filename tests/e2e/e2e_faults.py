"""Programs killed, stopped and restarted at any moment: the result is that of an undisturbed run."""
import json
import os
import random
import signal
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


main(long_slices_are_cut_by_time, killed_worker_costs_one_slice, killed_coordinator_goes_on, stopped_worker_loses_its_lease, stopped_worker_hands_back)
