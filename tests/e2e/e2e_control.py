"""What a user does with a coordinator: submit, look, pause, resume, cancel, priorities; and every program ends cleanly on SIGTERM."""
import json
import os
import re
import signal
import subprocess

from rig import check, main


def training_job(rig, search):
    return [j for j in rig.ask("show", search)["jobs"] if j["kind"] == "train.supernet"][0]


def pause_resume_cancel(rig):
    coordinator = rig.coordinator()
    worker = rig.worker()
    long = rig.submit(rig.search("long", epochs=5000, slice_steps=50))
    rig.wait(lambda: (training_job(rig, long)["step"] or 0) > 50, 60, "training")
    rig.good("pause", long)
    rig.wait(lambda: training_job(rig, long)["state"] == "ready", 30, "the job to stop at a checkpoint")
    check(rig.state(long) == "paused", "paused")
    step = training_job(rig, long)["step"]
    job = str(training_job(rig, long)["id"])
    check("paused" in rig.good("why", job), "why says paused")
    # Another search goes on meanwhile, with the same worker.
    short = rig.submit(rig.search("short"))
    rig.wait_done(short)
    check(training_job(rig, long)["step"] == step, "a paused search stands still")
    rig.good("resume", long)
    rig.wait(lambda: training_job(rig, long)["step"] > step + 50, 60, "it to go on")
    rig.good("priority", long, "5")
    check(rig.row(long)["priority"] == 5, "the new priority")
    rig.good("cancel", long)
    check(rig.state(long) == "cancelled", "cancelled")
    rig.wait(lambda: all(w["state"] == "idle" for w in rig.ask("workers")["workers"]), 30, "the worker to stop")
    r = rig.client("resume", long)
    check(r.returncode == 1 and "cancelled" in r.stderr, "a cancelled search stays so: %s" % r.stderr)
    worker.send_signal(signal.SIGTERM)
    check(rig.ends(worker) == 0, "the worker ends cleanly")
    rig.wait(lambda: not [w for w in rig.ask("workers")["workers"] if w["state"] != "away"], 10, "its goodbye")
    coordinator.send_signal(signal.SIGTERM)
    check(rig.ends(coordinator) == 0, "the coordinator ends cleanly")


def every_view(rig):
    rig.coordinator()
    worker = rig.worker("--name", "gardener", "--cache", rig.path("cache"))
    search = rig.submit(rig.search("views"), "--priority", "3")
    watch = rig.client("watch", search, timeout=90)
    check(watch.returncode == 0 and "done" in watch.stdout, "watch follows to the end: %s%s" % (watch.stdout, watch.stderr))
    listed = rig.good("list")
    check("views" in listed and "done" in listed, listed)
    check("gardener" in rig.good("workers"), "the worker's name")
    tree = rig.good("show", search)
    check("train.supernet" in tree and "eval.subnets" in tree and "export" in tree and "cost" in tree, tree)
    check("stem:" in rig.good("pareto", search), "a front")
    header = rig.good("pareto", search, "--csv").splitlines()[0]
    check(header == "architecture,accuracy,test_accuracy,params,macs,latency_ms,activation_bytes", header)
    for pick in ("knee", "best", "1"):
        rig.good("export", search, "--pick", pick, "--out", rig.path("member-" + pick))
    r = rig.client("export", search, "--pick", "rose")
    check(r.returncode == 1 and "none of knee, best, all" in r.stderr, r.stderr)
    r = rig.client("export", search, "--format", "onyx")
    check(r.returncode == 2 and "safetensors" in r.stderr, r.stderr)
    rig.good("logs", search)
    # What happened, from the first event to the last, in pages and from any event on; the same over all searches, with the worker's coming.
    told = [json.loads(line) for line in rig.good("events", search, "--json").splitlines()]
    ids = [e["event"] for e in told]
    check(ids == sorted(set(ids)) and all(str(e["search"]) == search for e in told), str(told)[:500])
    check([e["state"] for e in told if e["kind"] == "search.state"][-1] == "done" and [e for e in told if e["kind"] == "slice"], str(told)[-500:])
    check([json.loads(line) for line in rig.good("events", search, "--after", str(ids[2]), "--json").splitlines()] == told[3:], "from the fourth on")
    everything = [json.loads(line) for line in rig.good("events", "--json").splitlines()]
    check([e for e in everything if e.get("search") == int(search)] == told and [e for e in everything if e["kind"] == "worker"], "all events")
    check([e["event"] for e in everything] == list(range(1, len(everything) + 1)), "none is missing")
    line = [x for x in rig.good("events", search).splitlines() if " job.state " in x][-1]
    check(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \d+ job.state search=%s job=\d+ job_kind=export state=done " % search, line), line)
    r = rig.client("events", "99")
    check(r.returncode == 1 and "there is no search 99" in r.stderr, r.stderr)
    os.makedirs(rig.path("backup"))
    rig.good("backup", rig.path("backup"))
    check(sorted(os.listdir(rig.path("backup"))) == ["backup.json", "state.db", "weights.db"], "a backup of both databases")
    r = rig.client("retry", search)
    check(r.returncode == 1 and "only a failed one" in r.stderr, r.stderr)
    events = subprocess.Popen([worker.args[0].replace("espalier-worker", "espalier"), "watch", "--events", str(int(search) + 1), "--endpoint",
                               rig.endpoint], stdout=subprocess.PIPE, text=True, cwd=rig.dir)
    rig.children.append(events)
    check(events.wait(30) == 1, "no such search yet")
    second = rig.submit(rig.search("more", epochs=10))
    events = subprocess.run([events.args[0], "watch", "--events", second, "--endpoint", rig.endpoint], capture_output=True, text=True, timeout=90)
    rows = [json.loads(line) for line in events.stdout.splitlines()]
    check(rows and all(str(e["search"]) == second for e in rows), "events of this search: %s" % events.stdout[:500])


def usage(rig):
    for args, code, text in (
            ((), 2, ""),
            (("--help",), 0, ""),
            (("submit", "--help"), 0, ""),
            (("sumbit", "x"), 2, 'did you mean "submit"?'),
            (("list", "--jsn"), 2, "did you mean --json?"),
            (("show",), 2, "missing argument, expected: SEARCH"),
            (("show", "1", "2"), 2, 'unexpected argument "2"'),
            (("show", "one"), 2, "whole numbers"),
            (("priority", "1", "high"), 2, "whole numbers"),
            (("run", "x.yaml", "--workers", "0"), 2, "from 1 to 64"),
            (("run", "x.yaml", "--workers"), 2, "--workers needs a value"),
            (("run", "nowhere.yaml"), 1, "nowhere.yaml"),
            (("list", "--endpoint", "head:5700"), 1, "allowed are tcp://HOST:PORT and ipc://PATH"),
    ):
        r = subprocess.run([rig.program("espalier"), *args], capture_output=True, text=True, timeout=30, cwd=rig.dir)
        check(r.returncode == code, "%s: exit %d, expected %d: %s" % (args, r.returncode, code, r.stderr))
        check(text in r.stderr, "%s says %r, expected %r" % (args, r.stderr, text))
        if code == 0:
            check("usage:" in r.stdout, "help of %s" % (args,))
    for program, args, code, text in (
            ("espalier-worker", (), 2, "ENDPOINT is missing"),
            ("espalier-worker", ("tcp://head",), 2, "no host and port"),
            ("espalier-worker", ("tcp://head:1", "--device", "gpu"), 2, "allowed are cpu"),
            ("espalier-worker", ("tcp://head:1", "--slots", "x"), 2, "from 1 to 64"),
            ("espalier-worker", ("--help",), 0, ""),
            ("espalierd", ("--help",), 0, ""),
            ("espalierd", ("-c", "nowhere.yaml"), 1, "nowhere.yaml"),
    ):
        r = subprocess.run([rig.program(program), *args], capture_output=True, text=True, timeout=30, cwd=rig.dir)
        check(r.returncode == code, "%s %s: exit %d, expected %d: %s" % (program, args, r.returncode, code, r.stderr))
        check(text in r.stderr, "%s %s says %r, expected %r" % (program, args, r.stderr, text))


main(pause_resume_cancel, every_view, usage)
