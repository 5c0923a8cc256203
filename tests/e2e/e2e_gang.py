"""Gangs of real workers through the real coordinator: the same bits every time, whole ranks killed or told to stop in between."""
import json
import os
import signal

from rig import check, main, say


def gang_search(rig, name, ranks, epochs, slice_steps, evaluations=8):
    with open(rig.search(name, epochs=epochs, slice_steps=slice_steps, evaluations=evaluations, more="resources: {gpus: %d}" % ranks)) as f:
        text = f.read()
    return rig.write(name + ".yaml", text.replace("batch: 50", "batch: 48"))


def training(rig, search):
    """The step of the running training job, 0 while none has been heard of."""
    for job in rig.ask("show", search)["jobs"]:
        if job["state"] == "running" and job["kind"] == "train.supernet":
            return job["step"] or 0
    return 0


def finished(rig, search, name):
    rig.wait_done(search)
    result = rig.result(search, name)
    check(json.loads(result)["weights"], "the result names its weights")
    return result


def log_lines(rig, text):
    lines = []
    for name in sorted(os.listdir(rig.dir)):
        if name.startswith("worker-"):
            with open(rig.path(name), errors="replace") as f:
                lines += [line for line in f if text in line]
    return lines


def two_and_three_ranks_repeat_themselves(rig):
    rig.coordinator()
    for _ in range(3):
        rig.worker()
    results = {}
    for ranks in (1, 2, 3):
        path = gang_search(rig, "ranks%d" % ranks, ranks, epochs=4, slice_steps=20)
        for turn in (1, 2):
            result = finished(rig, rig.submit(path), "ranks%d-%d" % (ranks, turn))
            check(results.setdefault(ranks, result) == result, "%d ranks: the same result twice" % ranks)
    weights = {json.loads(r)["weights"] for r in results.values()}
    check(len(weights) == 3, "each number of ranks has weights of its own")
    check(log_lines(rig, "rank=2 of 3") and log_lines(rig, "rank=1 of 2"), "the workers were ranks")


def killed_rank_costs_one_slice(rig):
    path = gang_search(rig, "killed", 2, epochs=120, slice_steps=100)
    rig.coordinator(lease_ms=1500)
    workers = [rig.worker(), rig.worker()]
    want = finished(rig, rig.submit(path), "undisturbed")
    search = rig.submit(path)
    for kill in range(3):
        seen = training(rig, search)
        rig.wait(lambda: training(rig, search) > seen or rig.state(search) == "done", 60, "training to go on")
        check(rig.state(search) != "done", "killed in time")
        victim = workers.pop(kill % 2)  # not the same rank every time
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        workers.append(rig.worker())
    check(finished(rig, search, "killed") == want, "the same result after three ranks were killed")
    lost = [l for l in rig.ask("logs", search)["logs"] if l["outcome"] == "lost"]
    failed = [l for l in rig.ask("logs", search)["logs"] if l["outcome"] == "failed"]
    check(lost and not failed, "lost, not failed: %s" % json.dumps(failed))
    check(log_lines(rig, "is gone"), "the other rank noticed by itself")
    say("        %d attempts lost" % len(lost))


def stopped_rank_hands_the_gang_back(rig):
    path = gang_search(rig, "stopped", 2, epochs=120, slice_steps=100000)
    rig.coordinator(lease_ms=20000)
    workers = [rig.worker(), rig.worker()]
    want = finished(rig, rig.submit(path), "undisturbed")
    search = rig.submit(path)
    rig.wait(lambda: training(rig, search) > 0, 60, "training")
    workers[1].send_signal(signal.SIGTERM)
    check(rig.ends(workers[1], 20) == 0, "it leaves cleanly")
    rig.wait(lambda: training(rig, search) == 0, 20, "the gang to stop as a whole")
    rig.worker()
    check(finished(rig, search, "stopped") == want, "the same result")


main(two_and_three_ranks_repeat_themselves, killed_rank_costs_one_slice, stopped_rank_hands_the_gang_back)
