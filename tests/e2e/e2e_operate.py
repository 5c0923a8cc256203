"""Operating a coordinator: what systemd hears, a configuration read again, logs by job, health, the installed units."""
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request

from rig import check, main


def config(rig, text, lease_ms=4000, control="control"):
    rig.write("espalierd.yaml", "dir: {0}/state\ncontrol: ipc://{0}/{3}\ndata: ipc://{0}/data.sock\nstatus: ''\nhttp: 127.0.0.1:0\n"
              "lease_ms: {1}\nheartbeat_ms: 300\n{2}".format(rig.dir, lease_ms, text, control))


def start(rig, **kw):
    p = rig.start("espalierd", "-c", rig.path("espalierd.yaml"), **kw)
    rig.wait(lambda: p.poll() is not None or rig.client("list").returncode == 0, 30)
    check(p.poll() is None, "it started")
    return p


def read(rig, name="espalierd.log"):
    with open(rig.path(name), errors="replace") as f:
        return f.read()


def http(rig, path):
    address = re.search(r"http=(\S+)", read(rig)).group(1)
    try:
        with urllib.request.urlopen("http://%s%s" % (address, path), timeout=10) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


class Notify:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(20)
        self.env = dict(os.environ, NOTIFY_SOCKET=path, WATCHDOG_USEC="200000")

    def next(self, skip="WATCHDOG=1"):
        while True:
            said = self.socket.recv(4096).decode().split("\n")
            if said[0] != skip:
                return said


def systemd_hears_and_settings_change(rig):
    config(rig, "log: info\n")
    n = Notify(rig.path("notify"))
    p = start(rig, env=n.env)
    said = n.next()
    check(said[0] == "READY=1" and said[1].startswith("STATUS=ready control=ipc://"), str(said))
    for _ in range(3):
        check(n.next(skip="") == ["WATCHDOG=1"], "it lives")
    config(rig, "log: debug\nbackup: {every_s: 0, keep: 5}\nretention: {final_days: 7}\n", lease_ms=9000)
    p.send_signal(signal.SIGHUP)
    said = n.next()
    check(said[0] == "RELOADING=1" and said[1].startswith("MONOTONIC_USEC="), str(said))
    said = n.next()
    check(said[0] == "READY=1" and "5 settings changed" in said[1], str(said))
    log = read(rig)
    for line in ("name=lease_ms old=4000 new=9000", "name=log old=info new=debug", "name=backup.keep old=3 new=5", "name=retention.final_days old=90 new=7"):
        check('event="setting changed" ' + line in log, "%s: %s" % (line, log))
    config(rig, "log: debug\n", lease_ms=9000, control="other")
    r = rig.good("reload")
    check("3 settings changed; these need a restart: control" in r, r)
    check('level=warn component=espalierd event="setting needs a restart" name=control' in read(rig), read(rig))
    check(rig.client("list").returncode == 0, "it still listens where it did")
    before = read(rig)
    config(rig, "log: loud\n", lease_ms=5000)
    r = rig.client("reload")
    check(r.returncode == 1 and re.search(r"espalierd\.yaml:8:6: log: .*debug", r.stderr), r.stderr)
    p.send_signal(signal.SIGHUP)
    for _ in range(3):  # of `reload`, of its failure, of the signal's
        n.next()
    rig.wait(lambda: read(rig).count("configuration stays as it was") == 2, 10, "the mistake in the log")
    check("old=9000" not in read(rig)[len(before):], "nothing of it is in force")
    p.send_signal(signal.SIGTERM)
    while n.next()[0] != "STOPPING=1":
        pass
    check(rig.ends(p) == 0, "ends cleanly")


def fields(line):
    """key=value and key="va lue" of a line of text."""
    return {k: v.strip('"').replace('\\"', '"') for k, v in re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)', line)}


def logs_by_job(rig):
    for form in ("text", "json"):
        name = "espalierd-%s.log" % form
        config(rig, "log: debug\nlog_format: %s\n" % form)
        p = rig.start("espalierd", "-c", rig.path("espalierd.yaml"), log=name)
        rig.wait(lambda: rig.client("list").returncode == 0, 30)
        worker = rig.worker("--log-format", form)
        search = rig.submit(rig.search("small", evaluations=8))
        rig.wait_done(search)
        jobs = [j["id"] for j in rig.ask("show", search)["jobs"]]
        for q in (worker, p):
            q.terminate()
            check(rig.ends(q) == 0, "ends cleanly")
        rows = []
        for log in (name, "worker-%d.log" % rig.workers):
            for line in read(rig, log).splitlines():
                if not line.startswith("ready "):
                    rows.append(json.loads(line) if form == "json" else fields(line))
        check(len(rows) > 20, "there are lines")
        for row in rows:
            check(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ", row["time"]) and row["level"] in ("debug", "info", "warn", "error")
                  and row["component"] in ("espalierd", "worker") and row["event"], "every line says when, how bad, who and what: %s" % row)
        for job in jobs:
            own = [(r["component"], r["event"]) for r in rows if str(r.get("job")) == str(job) and r["level"] == "info"]
            for want in (("espalierd", "job leased"), ("worker", "job begins"), ("worker", "job ends"), ("espalierd", "job done")):
                check(want in own, "job %s, as told by its lines: %s" % (job, own))
            check(all(str(r.get("search")) == search for r in rows if str(r.get("job")) == str(job) and r["component"] == "worker"), "and its search")
        check(any(r["event"] == "done" and str(r.get("search")) == search for r in rows), "the search ends in it")


def health_follows_the_disk(rig):
    config(rig, "")
    p = start(rig)
    rig.worker()
    rig.wait_done(rig.submit(rig.search("small", evaluations=8)))
    check(http(rig, "/healthz") == (200, "ok\n"), "well")
    size = max(os.path.getsize(rig.path("state", n)) for n in os.listdir(rig.path("state")) if n.startswith("state.db"))
    no = resource.RLIM_INFINITY
    resource.prlimit(p.pid, resource.RLIMIT_FSIZE, (size, no))  # as a full disk: no file grows beyond this
    path = rig.search("more", seed=9)
    rig.wait(lambda: rig.client("submit", path, timeout=90).returncode == 1 or http(rig, "/healthz")[0] == 503, 60, "it to be unwell")
    rig.wait(lambda: http(rig, "/healthz")[0] == 503, 30, "/healthz to say so")
    status, text = http(rig, "/healthz")
    check("state.db" in text, text)
    resource.prlimit(p.pid, resource.RLIMIT_FSIZE, (no, no))
    rig.wait(lambda: http(rig, "/healthz") == (200, "ok\n"), 30, "it to be well again")
    rig.wait_done(rig.submit(path))


def installed_units(rig):
    root = rig.path("root")
    build = os.environ["ESPALIER_BUILD"]
    r = subprocess.run(["cmake", "--install", build], capture_output=True, text=True, env=dict(os.environ, DESTDIR=root))
    check(r.returncode == 0, r.stderr)
    found = {os.path.relpath(os.path.join(d, f), root) for d, _, files in os.walk(root) for f in files}
    prefix = next(f for f in found if f.endswith("/bin/espalierd"))[:-len("bin/espalierd")]
    for name in ("bin/espalier", "bin/espalier-worker", "lib/systemd/system/espalierd.service", "lib/systemd/system/espalier-worker@.service"):
        check(prefix + name in found, "%s is installed: %s" % (name, found))
    etc = next(f for f in found if f.endswith("espalier/espalierd.yaml"))
    with open(os.path.join(root, etc), "a") as f:
        f.write("# mine\n")
    subprocess.run(["cmake", "--install", build], capture_output=True, check=True, env=dict(os.environ, DESTDIR=root))
    with open(os.path.join(root, etc)) as f:
        check(f.read().endswith("# mine\n"), "a configuration that is there is not overwritten")
    unit = os.path.join(root, prefix, "lib/systemd/system/espalierd.service")
    with open(unit) as f:
        text = f.read()
    check("/%sbin/espalierd -c /%s" % (prefix, etc) in text and "Type=notify" in text and "WatchdogSec=" in text, text)
    if shutil.which("systemd-analyze"):
        for name in ("espalierd.service", "espalier-worker@.service"):
            with open(os.path.join(root, prefix, "lib/systemd/system", name)) as f:
                rig.write(name, f.read().replace("/%sbin/" % prefix, "%s/%sbin/" % (root, prefix)).replace("file:///", "file:/"))
        r = subprocess.run(["systemd-analyze", "verify", "--man=no", rig.path("espalierd.service"), rig.path("espalier-worker@.service")],
                           capture_output=True, text=True, timeout=60)
        wrong = [l for l in (r.stdout + r.stderr).splitlines() if "espalier" in l]
        check(not wrong, "systemd-analyze verify: %s" % wrong)


main(systemd_hears_and_settings_change, logs_by_job, health_follows_the_disk, installed_units)
