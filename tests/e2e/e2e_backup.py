"""Backups while a search runs, a destroyed database and what is said of it, the restore, and the same result in the end."""
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor

from rig import check, main, say


def espalierd(rig, *args):
    return subprocess.run([rig.program("espalierd"), "--dir", rig.path("state"), *args], capture_output=True, text=True, timeout=60, cwd=rig.dir)


def refused(rig):
    """What a coordinator says that does not start."""
    r = subprocess.run([rig.program("espalierd"), "-c", rig.path("espalierd.yaml")], capture_output=True, text=True, timeout=60, cwd=rig.dir)
    check(r.returncode == 1, "exit %d: %s" % (r.returncode, r.stderr))
    return r.stderr


def truncate(path):
    os.truncate(path, os.path.getsize(path) // 2)


def flip(path):
    size = os.path.getsize(path)
    with open(path, "r+b") as f:
        for at in range(size // 3, size, 4096 * 7):
            f.seek(at)
            old = f.read(16)
            f.seek(at)
            f.write(bytes(b ^ 0xff for b in old))


def empty(path):
    os.truncate(path, 0)


def restored_searches_go_on(rig):
    path = rig.search("small", epochs=60, slice_steps=20, evaluations=32)
    coordinator = rig.coordinator(lease_ms=1500)
    rig.worker()
    search = rig.submit(path)
    rig.wait_done(search)
    want = rig.result(search, "undisturbed")
    search = rig.submit(path)
    rig.wait(lambda: rig.row(search)["progress"]["training"]["step"] > 40, 60, "training")
    made = rig.good("backup").split(":")[0]
    check(made.startswith(rig.path("state", "backups")), made)
    seal = json.load(open(os.path.join(made, "backup.json")))
    check(seal["searches"] == 2 and seal["versions"] >= 3, str(seal))
    rig.wait(lambda: (rig.row(search)["progress"] or {"evaluations": {"done": 99}})["evaluations"]["done"] >= 8, 60, "evaluations, after the backup")
    for harm, db in ((truncate, "state.db"), (flip, "weights.db"), (empty, "state.db"), (flip, "state.db")):
        coordinator.send_signal(signal.SIGTERM)
        check(rig.ends(coordinator) == 0, "ends cleanly")
        harm(rig.path("state", db))
        text = refused(rig)
        check(db in text and "restore the last backup" in text, "%s: %s" % (harm.__name__, text))
        check("the last good backup is %s (" % made in text, text)
        command = text.split("hours old): ")[1].split()
        check(command[:2] == ["espalierd", "--dir"], text)
        r = espalierd(rig, "--restore", made)
        check(r.returncode == 1 and "--force" in r.stderr, "nothing is overwritten unasked: %s" % r.stderr)
        r = subprocess.run([rig.program("espalierd"), *command[1:]], capture_output=True, text=True, timeout=60)
        check(r.returncode == 0 and "restored the backup" in r.stdout, r.stdout + r.stderr)
        aside = r.stdout.split("what was there is in ")[1].strip()
        check(sorted(n for n in os.listdir(aside) if n.endswith(".db")) == ["state.db", "weights.db"], "the old databases are kept")
        coordinator = rig.coordinator(lease_ms=1500)
        check(rig.state(search) == "running", "it goes on")
    rig.wait_done(search)
    check(rig.result(search, "restored") == want, "the same result as undisturbed")
    first = rig.result("1", "first")
    check(first == want, "and the finished one is what it was")
    coordinator.send_signal(signal.SIGTERM)
    check(rig.ends(coordinator) == 0, "ends cleanly")
    check("are whole" in espalierd(rig, "--check").stdout, "whole in the end")


def a_damaged_log_is_not_dropped_in_silence(rig):
    """SQLite drops a bad frame of its log and what follows without a word; those commits had been acknowledged."""
    path = rig.search("small", epochs=60)
    coordinator = rig.coordinator()
    made = rig.good("backup").split(":")[0]
    for _ in range(6):
        rig.good("pause", rig.submit(path))
    coordinator.kill()
    coordinator.wait()
    log = rig.path("state", "state.db-wal")
    with open(log, "r+b") as f:  # in the page of a frame, two thirds into the log
        at = 32 + (os.path.getsize(log) - 32) // 4120 * 2 // 3 * 4120 + 24 + 500
        f.seek(at)
        old = f.read(1)
        f.seek(at)
        f.write(bytes([old[0] ^ 1]))
    r = espalierd(rig, "--check")
    check(r.returncode == 1 and "state.db-wal: is damaged at frame" in r.stderr and "the last good backup is %s (" % made in r.stderr, r.stderr)
    coordinator = rig.coordinator()
    with open(rig.path("espalierd.log")) as f:
        said = f.read()
    check("state.db-wal is damaged at frame" in said and "had been acknowledged" in said, said[-3000:])
    check("the last good backup is %s" % made in said, said[-3000:])
    check(os.path.getsize(log + ".damaged") > at, "the log is kept")
    check(0 < len(rig.ask("list")["searches"]) < 6, "it goes on with what stands before the damage")
    coordinator.send_signal(signal.SIGTERM)
    check(rig.ends(coordinator) == 0, "ends cleanly")


def damaged_backups_are_not_restored(rig):
    rig.coordinator()
    rig.worker()
    rig.wait_done(rig.submit(rig.search("small", evaluations=8)))
    old = rig.good("backup").split(":")[0]
    with ThreadPoolExecutor(8) as pool:  # one at a time; who comes meanwhile does not harm it
        said = list(pool.map(lambda _: rig.client("backup"), range(8)))
    check(any(r.returncode == 0 for r in said) and all(r.returncode == 0 or "is under way" in r.stderr for r in said), [r.stderr for r in said])
    good = rig.path("elsewhere")
    check(rig.good("backup", good).startswith(good), "a place of its own")
    check(rig.good("backup", good).startswith(good), "a newer one replaces it")
    r = rig.client("backup", rig.path("data"))
    check(r.returncode == 1 and "neither empty nor a backup" in r.stderr, r.stderr)
    newest = rig.good("backup").split(":")[0]
    flip(os.path.join(newest, "weights.db"))
    r = espalierd(rig, "--restore", newest, "--dir", rig.path("new"))
    check(r.returncode == 1 and "is not as it was made" in r.stderr, r.stderr)
    check(not os.path.exists(rig.path("new", "state.db")), "nothing was written")
    r = espalierd(rig, "--restore", rig.path("data"), "--dir", rig.path("new"))
    check(r.returncode == 1 and "is no backup" in r.stderr, r.stderr)
    r = espalierd(rig, "--restore", good, "--dir", rig.path("state"), "--force")
    check(r.returncode == 1 and "owns this folder" in r.stderr, "not under a running coordinator: %s" % r.stderr)
    shutil.rmtree(old, ignore_errors=True)  # gone already when two or more of the eight were made: three are kept
    r = espalierd(rig, "--restore", good, "--dir", rig.path("new"))
    check(r.returncode == 0, r.stderr)
    # A restore that a crash cut short, at any of its renames, is completed by the next start.
    whole = rig.path("new")
    for done in ((), ("state.db",)):
        cut = rig.path("cut%d" % len(done))
        shutil.copytree(whole, cut)
        os.makedirs(os.path.join(cut, "restore.ready"))
        for db in ("state.db", "weights.db"):
            if db not in done:
                shutil.copy(os.path.join(whole, db), os.path.join(cut, "restore.ready", db))
                os.unlink(os.path.join(cut, db))
        p = rig.start("espalierd", "--dir", cut, "--control", "ipc://%s.c" % cut, "--data", "ipc://%s.w" % cut, "--status", "", "--http", "")
        rig.wait(lambda: subprocess.run([rig.program("espalier"), "list", "--endpoint", "ipc://%s.c" % cut], capture_output=True).returncode == 0, 20, "it")
        r = subprocess.run([rig.program("espalier"), "show", "1", "--json", "--endpoint", "ipc://%s.c" % cut], capture_output=True, text=True)
        check(json.loads(r.stdout)["search"]["state"] == "done", r.stdout)
        p.terminate()
        check(rig.ends(p) == 0 and not os.path.exists(os.path.join(cut, "restore.ready")), "completed")


def automatic_backups_come_and_go(rig):
    rig.coordinator(more="backup: {every_s: 1, keep: 2}\nweights_grace_s: 1\n")
    rig.worker()
    search = rig.submit(rig.search("long", epochs=400, slice_steps=20))
    folder = rig.path("state", "backups")
    seen = set()

    def enough():
        seen.update(n for n in (os.listdir(folder) if os.path.isdir(folder) else ()) if not n.endswith(".partial"))
        return len(seen) >= 4
    rig.wait(enough, 40, "four backups")
    rig.wait_done(search)
    names = sorted(n for n in os.listdir(folder) if not n.endswith(".partial"))
    check(len(names) <= 3 and min(seen) not in names, "old ones go: %s of %d" % (names, len(seen)))
    # Disk use is bounded too: of a hundred checkpoints only what the result names is left.

    def versions():
        db = sqlite3.connect("file:%s?mode=ro" % rig.path("state", "weights.db"), uri=True)
        n = db.execute("SELECT (SELECT count(*) FROM version), (SELECT count(*) FROM orphan)").fetchone()
        db.close()
        return n
    named = json.dumps(json.loads(rig.result(search, "out")))
    rig.wait(lambda: versions()[1] == 0 and versions()[0] <= named.count('"weights"') + 1, 30, "unused weights to go: %s" % (versions(),))
    say("        %d versions left" % versions()[0])
    rig.good("pin", search)
    rig.good("unpin", search)
    rig.good("delete", search)
    rig.wait(lambda: versions() == (0, 0), 30, "all of them to go")
    r = rig.client("show", search)
    check(r.returncode == 1 and "there is no search" in r.stderr, r.stderr)


main(restored_searches_go_on, a_damaged_log_is_not_dropped_in_silence, damaged_backups_are_not_restored, automatic_backups_come_and_go)
