"""Databases of earlier schemas under this program: what was done stays, what was going on goes on, what was never begun ends as it would have."""
import glob
import json
import os
import re
import sqlite3
import subprocess

from rig import SOURCE, check, main, say

FIXTURES = os.path.join(SOURCE, "tests", "daemon", "fixtures")
WEIGHTS = {1: "1", 2: "1", 3: "2", 4: "2-of-4"}  # state.db's schema and the fixture of weights.db of the same run


def build(rig, db, version, folder):
    """The fixture of a schema as a database."""
    with open(os.path.join(FIXTURES, "%s-%s.sql" % (db, version))) as f:
        text = f.read().replace("@DIR@", rig.dir)
    os.makedirs(folder, exist_ok=True)
    con = sqlite3.connect(os.path.join(folder, db + ".db"))
    con.executescript(text)
    con.close()


def old_searches_go_on(rig):
    rig.coordinator()
    worker = rig.worker()
    third = rig.submit(rig.search("third", seed=5))
    rig.wait_done(third)
    want = rig.result(third, "fresh")
    for p in (worker, rig.children[0]):
        p.terminate()
        check(rig.ends(p) == 0, "ends cleanly")
    versions = sorted(int(re.search(r"-(\d+)\.sql$", p).group(1)) for p in glob.glob(os.path.join(FIXTURES, "state-*.sql")))
    check(versions[:2] == [1, 2], str(versions))
    for version in versions:
        state = rig.path("state")
        os.rename(state, rig.path("before-%d" % version))
        build(rig, "state", version, state)
        build(rig, "weights", WEIGHTS[version], state)
        con = sqlite3.connect(os.path.join(state, "state.db"))
        first = json.loads(con.execute("SELECT result FROM search WHERE id = 1").fetchone()[0])
        leased, attempt = con.execute("SELECT id, attempt FROM job WHERE search = 2 AND state = 3").fetchone()
        told = con.execute("SELECT count(*) FROM result WHERE search = 2 AND measure = 1 AND split = 1").fetchone()[0]
        con.close()
        coordinator, worker = rig.coordinator(), rig.worker()
        check([rig.state(s) for s in "1234"] == ["done", "running", "paused", "cancelled"], "as they were")
        rig.good("resume", "3")
        rig.wait_done("3")
        # The second goes on where it was: what it had found is known, its lease runs out and its job is given to the new worker. (Weights know the paths of the search
        # they belong to, and this is another folder than the fixture's: that job itself cannot end well here.)
        check(rig.row("2")["progress"] is None or rig.row("2")["progress"]["evaluations"]["done"] == told >= 8, str(rig.row("2")))
        rig.wait(lambda: [j for j in rig.ask("show", "2")["jobs"] if j["id"] == leased and j["attempt"] > attempt], 30, "its job to be taken up")
        check(rig.ask("pareto", "1")["result"] == first, "what was found is what it was")
        rig.good("export", "1", "--pick", "all", "--out", rig.path("old-%d" % version))  # its weights are still there
        check(rig.result("3", "third-%d" % version) == want, "the one that had not begun ends as a fresh one")
        for p in (worker, coordinator):
            p.terminate()
            check(rig.ends(p) == 0, "ends cleanly")
        say("        schema %d" % version)


def newer_schemas_are_refused(rig):
    newest = max(int(re.search(r"-(\d+)\.sql$", p).group(1)) for p in glob.glob(os.path.join(FIXTURES, "state-*.sql")))
    for db in ("state", "weights"):
        build(rig, db, newest if db == "state" else WEIGHTS[newest], rig.path("state"))
    p = rig.coordinator()
    p.terminate()
    check(rig.ends(p) == 0, "ends cleanly")
    for db in ("state", "weights"):
        con = sqlite3.connect(rig.path("state", db + ".db"))
        version = con.execute("PRAGMA user_version").fetchone()[0]
        con.execute("PRAGMA user_version = %d" % (version + 1))
        con.close()
        r = subprocess.run([rig.program("espalierd"), "-c", rig.path("espalierd.yaml")], capture_output=True, text=True, timeout=30)
        check(r.returncode == 1 and "has schema %d, this program knows up to %d" % (version + 1, version) in r.stderr, r.stderr)
        con = sqlite3.connect(rig.path("state", db + ".db"))
        con.execute("PRAGMA user_version = %d" % version)
        con.close()


main(old_searches_go_on, newer_schemas_are_refused)
