"""secure.py: the coordinator over tcp with CURVE, and people with keys: what the end-to-end tests of that share.

    p = coordinator(rig)                                     # from here on rig's client is its admin
    authorise(rig, keygen(rig, "ann", "client"), keygen(rig, "gpu-1", "worker"))
    reload(rig, p)
    be(rig, "ann")
    worker(rig, "gpu-1")
"""
import os
import signal
import socket

from rig import check

for name in ("ESPALIER_KEY", "ESPALIER_SERVER_KEY", "ESPALIER_INSECURE", "XDG_CONFIG_HOME"):
    os.environ.pop(name, None)


def free_ports(n):
    taken = [socket.socket() for _ in range(n)]
    for s in taken:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in taken]
    for s in taken:
        s.close()
    return ports


def keygen(rig, who, role):
    """A key of its own folder; the line for authorized_keys."""
    said = rig.client("keygen", rig.path("home", who), "--role", role, "--name", who, endpoint=False)
    check(said.returncode == 0, said.stderr)
    with open(rig.path("home", who, role + ".pub")) as f:
        line = f.read()
    check(line in said.stdout and line.startswith("%s %s " % (role, who)), "keygen prints the line: %s" % said.stdout)
    check(os.stat(rig.path("home", who, role + ".key")).st_mode & 0o777 == 0o600, "the secret key is private")
    return line


def authorise(rig, *lines):
    path = rig.path("state", "keys", "authorized_keys")
    with open(path, "a") as f:
        f.write("".join(lines))


def be(rig, key, role="client"):
    """From here on the client is who has this key."""
    os.environ["ESPALIER_KEY"] = rig.path("state", "keys", "admin.key") if key == "admin" else rig.path("home", key, role + ".key")


def coordinator(rig, more="", lease_ms=4000):
    control, data, status, http = free_ports(4)
    rig.endpoint = "tcp://127.0.0.1:%d" % control
    rig.data, rig.http = "tcp://127.0.0.1:%d" % data, "127.0.0.1:%d" % http
    rig.write("espalierd.yaml", "dir: %s/state\ncontrol: %s\ndata: %s\nstatus: tcp://127.0.0.1:%d\nhttp: %s\nhttp_token: always\n"
              "lease_ms: %d\nheartbeat_ms: 300\n%s" % (rig.dir, rig.endpoint, rig.data, status, rig.http, lease_ms, more))
    os.environ["HOME"] = rig.path("home")
    be(rig, "admin")
    os.environ["ESPALIER_SERVER_KEY"] = rig.path("state", "keys", "server.pub")
    p = rig.start("espalierd", "-c", rig.path("espalierd.yaml"))
    rig.wait(lambda: p.poll() is not None or rig.client("list").returncode == 0, 30)
    check(p.poll() is None, "the coordinator ended while it was started")
    return p


def reload(rig, p):
    """The keys are read again; ready when the log says so once more."""
    def times():
        with open(rig.path("espalierd.log")) as f:
            return sum("configuration read" in line or "stays as it was" in line for line in f)
    before = times()
    p.send_signal(signal.SIGHUP)
    rig.wait(lambda: times() > before, 10, "the reload")


def worker(rig, who, role="worker"):
    return rig.worker("--key", rig.path("home", who, role + ".key"))
