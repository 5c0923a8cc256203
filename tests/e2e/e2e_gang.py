"""Gangs of real workers through the real coordinator: the same bits every time, whole ranks killed or told to stop in between.

ESPALIER_GANG_DEVICES=cuda:0,cuda:1 runs it on those devices, as many ranks at most."""
import json
import os
import signal

from rig import check, main, say


DEVICES = [d for d in os.environ.get("ESPALIER_GANG_DEVICES", "").split(",") if d] or ["cpu:1"] * 3


SLICE = 1000 if DEVICES[0].startswith("cpu") else 4000  # a few seconds, also on a GPU at a millisecond a step: a step is told about once a second


def rank_worker(rig, i):
    return rig.worker("--device", DEVICES[i])


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
    rig.wait_done(search, 240)
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
    for i in range(len(DEVICES[:3])):
        rank_worker(rig, i)
    results = {}
    for ranks in range(1, len(DEVICES[:3]) + 1):
        path = gang_search(rig, "ranks%d" % ranks, ranks, epochs=4, slice_steps=20)
        for turn in (1, 2):
            result = finished(rig, rig.submit(path), "ranks%d-%d" % (ranks, turn))
            check(results.setdefault(ranks, result) == result, "%d ranks: the same result twice" % ranks)
    weights = {json.loads(r)["weights"] for r in results.values()}
    check(len(weights) == len(results), "each number of ranks has weights of its own")
    check(log_lines(rig, "gang of 2") and (len(results) < 3 or log_lines(rig, "gang of 3")), "the workers were ranks")


def killed_rank_costs_one_slice(rig):
    path = gang_search(rig, "killed", 2, epochs=2 * SLICE // 10, slice_steps=SLICE)
    rig.coordinator(lease_ms=1500)
    workers = [rank_worker(rig, 0), rank_worker(rig, 1)]
    want = finished(rig, rig.submit(path), "undisturbed")
    search = rig.submit(path)
    for victim in (1, 0):  # a rank that said where it is inside a slice is linked with the others
        rig.wait(lambda: training(rig, search) % SLICE > 0 or rig.state(search) == "done", 60, "the middle of a slice")
        check(rig.state(search) != "done", "killed in time")
        workers[victim].send_signal(signal.SIGKILL)
        workers[victim].wait()
        workers[victim] = rank_worker(rig, victim)
        rig.wait(lambda: training(rig, search) == 0, 20, "the attempt to end")
    check(finished(rig, search, "killed") == want, "the same result after two ranks were killed")
    logs = rig.ask("logs", search)["logs"]
    check([l for l in logs if l["outcome"] == "lost"], "lost: %s" % json.dumps(logs))
    check(not [l for l in logs if l["outcome"] == "failed"], "not failed: %s" % json.dumps(logs))
    check(len(log_lines(rig, "is gone")) >= 2, "the other rank noticed by itself, both times")


def stopped_rank_hands_the_gang_back(rig):
    path = gang_search(rig, "stopped", 2, epochs=120, slice_steps=100000)
    rig.coordinator(lease_ms=20000)
    workers = [rank_worker(rig, 0), rank_worker(rig, 1)]
    want = finished(rig, rig.submit(path), "undisturbed")
    search = rig.submit(path)
    rig.wait(lambda: training(rig, search) > 0, 60, "training")
    workers[1].send_signal(signal.SIGTERM)
    check(rig.ends(workers[1], 20) == 0, "it leaves cleanly")
    rig.wait(lambda: training(rig, search) == 0, 20, "the gang to stop as a whole")
    rank_worker(rig, 1)
    check(finished(rig, search, "stopped") == want, "the same result")


def one_command_starts_a_worker_for_every_rank(rig):
    path = gang_search(rig, "run", 2, epochs=2, slice_steps=10)
    few = rig.client("run", path, "--workers", "1", "--out", rig.path("few"))
    check(few.returncode != 0 and "2 ranks need 2 workers" in few.stderr, "too few workers are refused: %r" % few.stderr)
    one = rig.client("run", path, "--device", "cuda:0", "--out", rig.path("one"))
    check(one.returncode != 0 and "is one GPU for 2 ranks" in one.stderr, "one GPU for two is refused: %r" % one.stderr)
    rig.good("run", path, "--threads", "2", "--out", rig.path("out"))
    with open(rig.path("out", "result.json")) as f:
        check(json.load(f)["weights"], "it trained")


main(one_command_starts_a_worker_for_every_rank, two_and_three_ranks_repeat_themselves, killed_rank_costs_one_slice, stopped_rank_hands_the_gang_back)
