"""A search from its file to the results a user takes home, by `espalier run` and through a coordinator with one worker and with three."""
import csv
import json
import os
import signal
import struct
from math import prod

from rig import check, children_of, main, strip_times


def safetensors(path):
    """Reads the file as any reader would: header, then arrays without gaps that end where the file does."""
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    end = 0
    for name, a in sorted(header.items(), key=lambda kv: kv[1]["data_offsets"]):
        begin, stop = a["data_offsets"]
        count = 1
        for d in a["shape"]:
            count *= d
        check(begin == end and stop - begin == count * {"F32": 4, "I32": 4, "U8": 1}[a["dtype"]], "array %s of %s" % (name, path))
        end = stop
    check(8 + n + end == len(data), "%s ends where its arrays do" % path)
    return header


def run_brings_results_home(rig):
    path = rig.search("small", epochs=12, more="constraints: {params: {max: 20k}}")
    r = rig.client("run", path, "--out", "out", "--threads", "1", timeout=120)
    check(r.returncode == 0, r.stderr)
    for word in ("training", "epoch", "loss", "images/s", "evaluations 0/24"):
        check(word in r.stderr, "progress names %s: %s" % (word, r.stderr))
    check("\r" not in r.stderr, "plain lines when it is no terminal")
    with open(rig.path("out", "result.json")) as f:
        front = json.load(f)["front"]
    check(front, "the front has members")
    for i, m in enumerate(front):
        for field in ("architecture", "accuracy", "test_accuracy", "params", "macs", "latency_ms"):
            check(field in m, "member %d has %s" % (i, field))
        check(0 <= m["accuracy"] <= 1 and 0 <= m["test_accuracy"] <= 1 and 0 < m["params"] <= 20000, "member %d is in range" % i)
        check(m["architecture"] in r.stdout, "the table shows member %d" % i)
        arrays = safetensors(rig.path("out", m["weights"]))
        with open(os.path.join(os.path.dirname(rig.path("out", m["weights"])), "architecture.txt")) as f:
            check(f.read() == m["architecture"] + "\n", "architecture.txt of member %d" % i)
        floats = sum(max(1, prod(a["shape"])) for a in arrays.values())
        check(floats >= m["params"], "member %d: %d numbers for %d parameters" % (i, floats, m["params"]))
        for o in front:
            check(not (o["accuracy"] >= m["accuracy"] and o["macs"] < m["macs"] and o is not m), "member %d is dominated" % i)
    with open(rig.path("out", "pareto.csv")) as f:
        rows = list(csv.DictReader(f))
    check([r["architecture"] for r in rows] == [m["architecture"] for m in front], "pareto.csv has the same members")
    cost = rig.good("cost", path, "--archs", rig.write("archs.txt", "".join(m["architecture"] + "\n" for m in front)))
    for line, m in zip(cost.splitlines()[1:], front):
        check(line.rsplit(",", 3)[1:3] == [str(m["params"]), str(m["macs"])], "cost agrees: %s" % line)
    check(not os.path.exists(rig.path("out", ".espalier")), "nothing else is left behind")
    again = rig.client("run", path, "--out", "out")
    check(again.returncode == 0 and "finished before" in again.stdout, "a second run shows the results")


def interrupted_run_goes_on(rig):
    path = rig.search("small", epochs=200, slice_steps=50)
    whole = rig.client("run", path, "--out", "whole", "--threads", "1", timeout=120)
    check(whole.returncode == 0, whole.stderr)
    log = rig.path("espalier.log")
    rig.endpoint = "ipc://" + rig.path("parts", ".espalier", "control")

    def step():
        r = rig.client("show", "1", "--json")
        return r.returncode == 0 and json.loads(r.stdout)["jobs"][0]["step"] or 0

    # Ctrl-C; then a kill without warning, at which the children end by themselves; then to the end.
    reached = 0
    for number, code in ((signal.SIGINT, 1), (signal.SIGKILL, -9)):
        p = rig.start("espalier", "run", path, "--out", "parts", "--threads", "1")
        rig.wait(lambda p=p: len(children_of(p.pid)) == 2, 30, "two children")
        rig.wait(lambda reached=reached: step() > reached + 60, 60, "training")
        reached = step()
        kids = [pid for pid, _ in children_of(p.pid)]
        p.send_signal(number)
        check(rig.ends(p) == code, "exit %s" % p.returncode)
        rig.wait(lambda kids=kids: not any(os.path.exists("/proc/%d" % k) for k in kids), 30, "the children to end")
        if number == signal.SIGINT:
            with open(log) as f:
                check("the same command goes on where it stopped" in f.read(), "it says how to go on")
    r = rig.client("run", path, "--out", "parts", "--threads", "1", timeout=120)
    check(r.returncode == 0 and "going on where it stopped" in r.stderr, r.stderr)
    check(strip_times(rig.path("parts", "result.json")) == strip_times(rig.path("whole", "result.json")), "the same result")


def latencies_say_how_they_were_measured(rig):
    with open(rig.search("small", evaluations=8)) as f:
        path = rig.write("timed.yaml", f.read().replace("macs: min", "latency_ms: min"))
    r = rig.client("run", path, "--out", "timed", "--threads", "1", timeout=120)
    check(r.returncode == 0, r.stderr)
    with open(rig.path("timed", "result.json")) as f:
        front = json.load(f)["front"]
    check(front, "the front has members")
    for m in front:
        how = m["latency"]
        low, high = how["quartiles_ms"]
        check(0 < low <= m["latency_ms"] <= high and how["runs"] >= 50 and how["machine"], "%s of a latency of %s ms" % (how, m["latency_ms"]))


def one_worker_or_three(rig):
    rig.coordinator()
    first = rig.worker()
    one = rig.submit(rig.search("small"), "--token", "one")
    check(rig.submit(rig.search("small"), "--token", "one") == one, "the same token is the same search")
    rig.wait_done(one)
    rig.worker()
    rig.worker()
    rig.wait(lambda: len(rig.ask("workers")["workers"]) == 3, 20, "three workers")
    three, other = rig.submit(rig.search("small")), rig.submit(rig.search("other", seed=4))
    check(len({one, three, other}) == 3, "three searches")
    rig.wait_done(three)
    rig.wait_done(other)
    check(rig.result(one, "r1") == rig.result(three, "r3"), "one worker or three: the same result")
    check(rig.result(other, "r4") != rig.result(three, "r3"), "another seed, another result")
    first.send_signal(signal.SIGTERM)
    check(rig.ends(first) == 0, "a worker ends cleanly")


def modules_train_apart(rig):
    """Module training: a job per phase and part, on two workers; assembled weights are evaluated beside end-to-end training."""
    path = rig.search("parts", more="")
    with open(path) as f:
        text = f.read()
    text = text[:text.index("supernet:")] + (
        "supernet: {method: modules, epochs: 4, batch: 50, slice_steps: 10, calibration: 100, optimizer: {kind: sgd, lr: 0.1},\n"
        "  modules: {parts: 2, epochs_meta: 2, epochs_part: 2, epochs_finetune: 2}}\nobjectives: [accuracy: max, macs: min]\n")
    rig.write("parts.yaml", text)
    rig.coordinator()
    rig.worker()
    rig.worker()
    search = rig.submit(rig.path("parts.yaml"))
    rig.wait_done(search)
    jobs = rig.ask("show", search)["jobs"]
    kinds = [j["kind"] for j in jobs]
    check(kinds.count("train.module") >= 4 and "assemble" in kinds and all(j["state"] == "done" for j in jobs), "jobs: %s" % kinds)
    tree = rig.good("show", search)
    check("|-- " in tree or "`-- " in tree, tree)
    one = rig.result(search, "two-workers")
    rig.good("pareto", search)
    again = rig.submit(rig.path("parts.yaml"))
    rig.wait_done(again)
    check(rig.result(again, "again") == one, "the same result again")


def table_search(rig):
    """A search against a published table: no training, the same path."""
    path = rig.search("cells")
    with open(path) as f:
        text = f.read()
    space = text[text.index("space:"):text.index("supernet:")]
    rows = ["arch,valid,test"]
    for stem in (8, 12):
        for width in (8, 12):
            for kernel in (3, 5):
                rows.append("stem:w%d+0:w%d:k%d,%d,%d" % (stem, width, kernel, 50 + stem + width + kernel, 49 + stem + width + kernel))
    space = space.replace("depth: [1, 2]", "depth: 1")
    rig.write("space.yaml", space)
    rig.write("table.csv", "\n".join(rows) + "\n")
    rig.write("cells.yaml", "name: cells\ntask: {kind: table, file: table.csv, architecture: arch, value: valid, report: test}\nspace: space.yaml\n"
              "search: {algorithm: random, evaluations: 6}\nobjectives: [accuracy: max, macs: min]\n")
    r = rig.client("run", path, "--out", "out", "--threads", "1")
    check(r.returncode == 0, r.stderr)
    with open(rig.path("out", "result.json")) as f:
        front = json.load(f)["front"]
    check(front and all(abs(m["accuracy"] - m["test_accuracy"] - 0.01) < 1e-9 for m in front), "values of the table: %s" % front)


main(run_brings_results_home, latencies_say_how_they_were_measured, interrupted_run_goes_on, one_worker_or_three, modules_train_apart, table_search)
