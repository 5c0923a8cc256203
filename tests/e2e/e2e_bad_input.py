"""Whatever is wrong is said clearly, where it is wrong and what is allowed, and nothing is lost by it."""
import os
import re
import shutil
import socket
import struct
import subprocess

from rig import check, main, say


def run_fails(rig, path, *texts, out="out", timeout=90):
    r = rig.client("run", path, "--out", out, "--threads", "1", timeout=timeout)
    check(r.returncode == 1, "exit %d: %s%s" % (r.returncode, r.stdout, r.stderr))
    for text in texts:
        check(text in r.stderr, "says %r, expected %r" % (r.stderr, text))
    return r.stderr


def edited(rig, old, new):
    with open(rig.search("wrong")) as f:
        text = f.read()
    check(old in text, "the search file has %r" % old)
    return rig.write("wrong.yaml", text.replace(old, new))


def search_file(rig):
    """Before anything is started: file:line:column, field, what is wrong, what is allowed."""
    for old, new, texts in (
            ("supernet:", "supernett:", ("wrong.yaml:12:1: supernett: unknown field", 'did you mean "supernet"?')),
            ("epochs: 3", "epochs: many", ("supernet.epochs", "many")),
            ("epochs: 3", "epochs: -3", ("supernet.epochs", "-3")),
            ("batch: 50", "batch: [50]", ("supernet.batch",)),
            ("method: sandwich", "method: sandwhich", ("supernet.method", 'did you mean "sandwich"?')),
            ("accuracy: max", "acuracy: max", ("objectives", "acuracy")),
            ("kernel: [3, 5]", "kernel: [3, 4]", ("kernel", "4")),
            ("input: 12x12x1", "input: 12x12", ("space.input",)),
    ):
        said = run_fails(rig, edited(rig, old, new), *texts)
        check(re.search(r"wrong\.yaml:\d+:\d+", said), "names the place: %s" % said)
        check(not os.path.exists(rig.path("out", ".espalier")), "nothing was started")


def data(rig):
    path = rig.search("small")
    images, labels = rig.path("data", "train-images-idx3-ubyte"), rig.path("data", "train-labels-idx1-ubyte")
    with open(images, "rb") as f:
        good_images = f.read()
    with open(labels, "rb") as f:
        good_labels = f.read()

    def broken(name, content, *texts):
        where = images if content[0] == "images" else labels
        if content[1] is None:
            os.unlink(where)
        else:
            with open(where, "wb") as f:
                f.write(content[1])
        try:
            run_fails(rig, path, *texts, out="out-" + name)
        finally:
            for p, b in ((images, good_images), (labels, good_labels)):
                with open(p, "wb") as f:
                    f.write(b)

    broken("missing", ("images", None), "train-images-idx3-ubyte")
    broken("truncated", ("images", good_images[:5000]), "train-images-idx3-ubyte", "bytes")
    broken("kind", ("images", b"hello" * 100), "train-images-idx3-ubyte")
    broken("label", ("labels", good_labels[:8 + 77] + b"\x0b" + good_labels[8 + 78:]), "train-labels-idx1-ubyte", "11", "9")
    broken("count", ("labels", struct.pack(">II", 0x801, 600) + good_labels[8:608]), "600", "700")
    run_fails(rig, edited(rig, "input: 12x12x1", "input: 14x14x1"), "12", "14", out="out-shape")
    # The data is whole again: the same command goes on; --again begins anew.
    r = rig.client("run", path, "--out", "out-label", "--threads", "1", timeout=90)
    check(r.returncode == 0 and "trying again" in r.stderr, r.stderr)
    r = rig.client("run", path, "--out", "out-count", "--threads", "1", "--again", timeout=90)
    check(r.returncode == 0 and "trying again" not in r.stderr, r.stderr)


def infeasible(rig):
    path = rig.search("tight", more="constraints: {params: {max: 10}}")
    said = run_fails(rig, path, "params", timeout=60)
    check("10" in said, said)


def directories(rig):
    path = rig.search("small")
    rig.write("file", "")
    run_fails(rig, path, "file/out", out="file/out")
    r = subprocess.run([rig.program("espalierd"), "--dir", rig.path("file", "state"), "--control", rig.endpoint], capture_output=True, text=True,
                       timeout=30, cwd=rig.dir)
    check(r.returncode == 1 and "file/state" in r.stderr, "espalierd: exit %d: %s" % (r.returncode, r.stderr))
    # Another search file, or another run, in a directory that is in use.
    p = rig.start("espalier", "run", rig.search("long", epochs=5000), "--out", "busy", "--threads", "1")
    rig.wait(lambda: os.path.exists(rig.path("busy", ".espalier", "control")), 30, "the run to start")
    said = run_fails(rig, path, "another espalier run works in this directory", out="busy")
    check("--out" in said, said)
    p.terminate()
    check(rig.ends(p) == 1, "interrupted")
    run_fails(rig, path, "unfinished search of another search file", out="busy")


def missing_program(rig):
    os.makedirs(rig.path("bin"))
    shutil.copy(rig.program("espalier"), rig.path("bin", "espalier"))
    r = subprocess.run([rig.path("bin", "espalier"), "run", rig.search("small"), "--out", "out"], capture_output=True, text=True, timeout=30,
                       cwd=rig.dir, env={**os.environ, "PATH": "/usr/bin"})
    check(r.returncode == 1 and "espalierd" in r.stderr and "neither beside espalier" in r.stderr, r.stderr)


def occupied_port(rig):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        r = subprocess.run([rig.program("espalierd"), "--dir", rig.path("state"), "--control", "tcp://127.0.0.1:%d" % port], capture_output=True,
                           text=True, timeout=30, cwd=rig.dir)
    check(r.returncode == 1 and str(port) in r.stderr and "in use" in r.stderr.lower(), "exit %d: %s" % (r.returncode, r.stderr))


def second_coordinator(rig):
    rig.coordinator()
    r = subprocess.run([rig.program("espalierd"), "--dir", rig.path("state"), "--control", "ipc://" + rig.path("c2"), "--data",
                        "ipc://" + rig.path("d2"), "--status", "ipc://" + rig.path("s2")], capture_output=True, text=True, timeout=60, cwd=rig.dir)
    check(r.returncode == 1 and rig.path("state") in r.stderr, "exit %d: %s" % (r.returncode, r.stderr))


def full_disk(rig):
    """A small disk runs full during a search; with room made, the same command goes on."""
    os.makedirs(rig.path("disk"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", rig.path("disk")], capture_output=True)
    if mounted.returncode != 0:
        say("        SKIPPED: cannot mount a small disk here")
        return
    try:
        path = rig.search("small", epochs=20)
        with open(rig.path("disk", "ballast"), "wb") as f:
            f.write(bytes(700 << 10))
        r = rig.client("run", path, "--out", "disk/out", "--threads", "1", timeout=120)
        check(r.returncode == 1, "exit %d: %s%s" % (r.returncode, r.stdout, r.stderr))
        check("full" in r.stderr or "No space left" in r.stderr, "says that the disk is full: %s" % r.stderr)
        os.unlink(rig.path("disk", "ballast"))
        subprocess.run(["mount", "-o", "remount,size=64m", rig.path("disk")], check=True)
        r = rig.client("run", path, "--out", "disk/out", "--threads", "1", timeout=120)
        check(r.returncode == 0, "with room made: %s" % r.stderr)
    finally:
        subprocess.run(["umount", "-l", rig.path("disk")], check=False)


def read_only_disk(rig):
    os.makedirs(rig.path("disk"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", rig.path("disk")], capture_output=True).returncode != 0:
        say("        SKIPPED: cannot mount a read-only disk here")
        return
    try:
        run_fails(rig, rig.search("small"), "disk", "Read-only file system", out="disk")
    finally:
        subprocess.run(["umount", "-l", rig.path("disk")], check=False)


def unknown_search(rig):
    rig.coordinator()
    for command in ("show", "pareto", "cancel", "pause", "resume", "logs", "export"):
        r = rig.client(command, "99")
        check(r.returncode == 1 and "99" in r.stderr, "%s 99: exit %d: %s%s" % (command, r.returncode, r.stdout, r.stderr))


main(search_file, data, infeasible, directories, missing_program, occupied_port, second_coordinator, full_disk, read_only_disk, unknown_search)
