"""rig.py: the real programs on a small real search, for the end-to-end tests.

    with Rig("kill") as rig:
        rig.coordinator(lease_ms=2000)
        worker = rig.worker()
        search = rig.submit(rig.search("a"))
        rig.wait(lambda: rig.state(search) == "done", 60)

Everything lives in a folder of its own below the current one and ends with the rig. Tests wait for what they wait for; a failed check says where, with the logs.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
by_hand = "ESPALIER_BUILD" not in os.environ  # not by ctest: the folder build/, and a scratch folder in it
SOURCE = os.environ.setdefault("ESPALIER_SOURCE", os.path.dirname(os.path.dirname(HERE)))
BUILD = os.environ.setdefault("ESPALIER_BUILD", os.path.join(SOURCE, "build"))
if by_hand:
    scratch = os.path.join(BUILD, "tests", "scratch", "by-hand")
    os.makedirs(scratch, exist_ok=True)
    os.chdir(scratch)
DEVICE = os.environ.get("ESPALIER_TEST_DEVICE", "cpu:1")  # of workers; cuda:0 where there is one
os.environ.pop("ESPALIER_ENDPOINT", None)

SEARCH = """\
name: {name}
seed: {seed}
task:
  kind: image-classification
  data: {{format: idx, train: data/train, test: data/test, validation: 200}}
space:
  input: 12x12x1
  stem: {{width: [8, 12], kernel: 3, stride: 2}}
  stages:
    - {{block: mbconv, width: [8, 12], depth: [1, 2], kernel: [3, 5], expand: 2, stride: 2}}
  head: {{width: 16, classes: 10}}
supernet: {{method: sandwich, random_subnets: 1, distill: kl, epochs: {epochs}, batch: 50, slice_steps: {slice_steps}, calibration: 100,
  optimizer: {{kind: sgd, lr: 0.1}}}}
search: {{algorithm: nsga2, population: 8, evaluations: {evaluations}}}
objectives: [accuracy: max, macs: min]
{more}
"""


class Failed(Exception):
    pass


def check(truth, what):
    if not truth:
        raise Failed(what)


def say(text):
    print(text, flush=True)


class Rig:
    def __init__(self, name):
        self.dir = os.path.join(os.getcwd(), name)
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(os.path.join(self.dir, "data"))
        subprocess.run([sys.executable, os.path.join(HERE, "digits.py"), self.path("data"), "700", "200"], check=True)
        self.children = []
        self.endpoint = "ipc://" + self.path("control")
        self.workers = 0

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for p in self.children:
            if p.poll() is None:
                p.send_signal(signal.SIGCONT)
                p.kill()
                p.wait()
        if kind:
            for name in sorted(os.listdir(self.dir)):
                if name.endswith(".log"):
                    with open(self.path(name), errors="replace") as f:
                        print("==", name, "==\n" + f.read()[-3000:], flush=True)
        return False

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)
        return self.path(name)

    def search(self, name, seed=3, epochs=3, slice_steps=4, evaluations=24, more=""):
        return self.write(name + ".yaml", SEARCH.format(**{k: v for k, v in locals().items() if k != "self"}))

    # ---- programs

    @staticmethod
    def program(name):
        return os.path.join(BUILD, name)

    def start(self, program, *args, log=None, **kw):
        with open(self.path(log or program + ".log"), "a") as f:
            p = subprocess.Popen([os.path.join(BUILD, program), *args], stdin=subprocess.DEVNULL, stdout=f, stderr=f, cwd=self.dir, **kw)
        self.children.append(p)
        return p

    def coordinator(self, lease_ms=4000, more="", ready=True, **kw):
        """`more`: further lines of its configuration. ready=False: does not wait until it answers."""
        self.write("espalierd.yaml", "dir: {0}/state\ncontrol: ipc://{0}/control\ndata: ipc://{0}/data.sock\nstatus: ipc://{0}/status\nhttp: ''\n"
                   "lease_ms: {1}\nheartbeat_ms: {2}\n{3}".format(self.dir, lease_ms, min(300, lease_ms // 4), more))
        p = self.start("espalierd", "-c", self.path("espalierd.yaml"), **kw)
        if not ready:
            return p
        self.wait(lambda: p.poll() is not None or self.client("list").returncode == 0, 30)
        check(p.poll() is None, "the coordinator ended while it was started")
        return p

    def worker(self, *args, **kw):
        self.workers += 1
        return self.start("espalier-worker", self.endpoint, "--device", DEVICE, *args, log="worker-%d.log" % self.workers, **kw)

    def client(self, *args, timeout=60, endpoint=True):
        local = args[0] in ("run", "cost", "explain") or not endpoint
        where = [] if local else ["--endpoint", self.endpoint]
        return subprocess.run([os.path.join(BUILD, "espalier"), *args, *where], capture_output=True, text=True, timeout=timeout, cwd=self.dir)

    def good(self, *args, **kw):
        r = self.client(*args, **kw)
        check(r.returncode == 0, "espalier %s: exit %d: %s" % (" ".join(args), r.returncode, r.stderr))
        return r.stdout

    def ask(self, *args):
        return json.loads(self.good(*args, "--json"))

    def submit(self, path, *args):
        words = self.good("submit", path, *args).split()
        check(words[0] == "search", "submit said %r" % (words,))
        return words[1]

    def row(self, search):
        return self.ask("show", search)["search"]

    def state(self, search):
        return self.row(search)["state"]

    def result(self, search, name):
        """result.json, exported through the client, without times."""
        self.good("export", search, "--pick", "all", "--out", self.path(name))
        return strip_times(self.path(name, "result.json"))

    def wait(self, ready, seconds, what="it", every=0.05):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if ready():
                return
            time.sleep(every)
        raise Failed("waited %d s for %s" % (seconds, what))

    def wait_done(self, search, seconds=240):
        def over():
            state = self.state(search)
            check(state in ("running", "done"), "search %s is %s: %s" % (search, state, self.row(search)["reason"]))
            return state == "done"
        self.wait(over, seconds, "search %s to be done" % search)

    def ends(self, p, seconds=30):
        try:
            return p.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed("%s did not end within %d s" % (p.args[0], seconds)) from None


def strip_times(path):
    with open(path) as f:
        result = json.load(f)
    for member in result["front"]:
        member.pop("latency_ms", None)
        member.pop("latency", None)
    return json.dumps(result, indent=1)


def children_of(pid):
    out = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as f:
                    text = f.read()
                if int(text.rsplit(")", 1)[1].split()[1]) == pid:
                    out.append((int(name), text[text.index("(") + 1:text.rindex(")")]))
            except (OSError, IndexError):
                pass
    return out


def main(*tests):
    """Runs the tests named by the arguments, or all. Exit status 1 when one failed."""
    failed = 0
    for test in tests:
        if len(sys.argv) > 1 and test.__name__ not in sys.argv[1:]:
            continue
        began = time.monotonic()
        try:
            with Rig(test.__name__) as rig:
                test(rig)
            say("ok      %s (%.1f s)" % (test.__name__, time.monotonic() - began))
        except (Failed, subprocess.TimeoutExpired, OSError, KeyError, ValueError) as e:
            failed += 1
            say("FAILED  %s (%.1f s): %s: %s" % (test.__name__, time.monotonic() - began, type(e).__name__, e))
    sys.exit(1 if failed else 0)
