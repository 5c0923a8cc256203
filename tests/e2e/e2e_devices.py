"""A worker and its device: a list of devices is a process each, one that dies is replaced; a job that cannot fit is refused with the figure, and the worker goes on."""
import os
import signal
import struct
import subprocess

from rig import check, children_of, main

# 150 images of 256x256 with 384 channels in the middle of each block: 15 GB an activation, 300 GB in all; more channels on a machine that has more memory.
WIDTH = 64 * (1 + os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (128 << 30))
TOO_LARGE = """\
name: large
task:
  kind: image-classification
  data: {format: idx, train: large/train, test: large/train, validation: 20}
space:
  input: 256x256x1
  stem: {width: 64, kernel: 1, stride: 1}
  stages:
    - {block: mbconv, width: 64, depth: 8, kernel: 3, expand: 6, stride: 1}
  head: {width: 16, classes: 10}
supernet: {method: single-path, epochs: 1, batch: 150, calibration: 10, optimizer: {kind: sgd, lr: 0.1}}
search: {algorithm: random, evaluations: 1}
objectives: [accuracy: max]
""".replace("width: 64", "width: %d" % WIDTH)


def large_images(rig, n=200, side=256):
    os.makedirs(rig.path("large"))
    with open(rig.path("large", "train-images-idx3-ubyte"), "wb") as f:
        f.write(struct.pack(">IIII", 0x803, n, side, side) + bytes(range(256)) * (n * side * side // 256))
    with open(rig.path("large", "train-labels-idx1-ubyte"), "wb") as f:
        f.write(struct.pack(">II", 0x801, n) + bytes(i % 10 for i in range(n)))


def online(rig):
    return [w for w in rig.ask("workers")["workers"] if w["state"] != "away"]


def a_process_for_each(rig):
    rig.coordinator(lease_ms=1500)
    both = rig.start("espalier-worker", rig.endpoint, "--device", "cpu:1,cpu:2", "--name", "pair", log="worker.log")
    rig.wait(lambda: len(online(rig)) == 2, 30, "both workers")
    names = sorted(w["name"] for w in online(rig))
    check(names == ["pair:cpu:1", "pair:cpu:2"], "their names: %s" % names)
    first = children_of(both.pid)
    check(len(first) == 2, "two processes: %s" % first)
    os.kill(first[0][0], signal.SIGKILL)
    rig.wait(lambda: len(children_of(both.pid)) == 2 and children_of(both.pid) != first, 30, "the dead one to be replaced")
    search = rig.submit(rig.search("a", epochs=1))
    rig.wait_done(search)
    both.send_signal(signal.SIGTERM)
    check(rig.ends(both) == 0, "it ends cleanly, its workers with it")
    rig.wait(lambda: not online(rig), 10, "their goodbyes")


def stopped_at_once(rig):
    for _ in range(10):
        worker = rig.start("espalier-worker", "ipc:///nowhere", "--device", "cpu:1,cpu:2,cpu:3,cpu:4", log="worker.log")
        rig.wait(lambda: children_of(worker.pid), 10, "its first process")
        worker.send_signal(signal.SIGTERM)
        check(rig.ends(worker) == 0, "stopped while its processes start, it ends cleanly with them")


def whatever_there_is(rig):
    rig.coordinator()
    worker = rig.start("espalier-worker", rig.endpoint, "--device", "auto", log="worker.log")
    rig.wait(lambda: online(rig), 60, "a worker")
    check(all(w["device"].startswith(("cpu", "cuda:")) for w in online(rig)), "its devices: %s" % online(rig))
    search = rig.submit(rig.search("a", epochs=1))
    rig.wait_done(search)
    worker.send_signal(signal.SIGTERM)
    check(rig.ends(worker) == 0, "it ends cleanly")


def wrong_devices(rig):
    for name, words in (("cpu:1,cpu:1", "twice"), ("cpu,", "allowed are auto"), ("tpu:0", "not a device"), ("cpu:1,tpu:0", "not a device"), ("", "allowed are auto")):
        r = subprocess.run([rig.program("espalier-worker"), "ipc:///nowhere", "--device", name], capture_output=True, text=True, timeout=20)
        check(r.returncode == 2 and words in r.stderr, "--device '%s': exit %d: %s" % (name, r.returncode, r.stderr))


def too_large_is_refused(rig):
    rig.coordinator()
    worker = rig.worker()
    large_images(rig)
    large = rig.submit(rig.write("large.yaml", TOO_LARGE))
    rig.wait(lambda: rig.state(large) == "failed", 60, "the job that cannot fit to fail")
    reason = rig.row(large)["reason"]
    check("MiB" in reason and "batch" in reason, "the reason has the figure: %s" % reason)
    check(worker.poll() is None, "the worker lives")
    small = rig.submit(rig.search("small", epochs=1))
    rig.wait_done(small)
    check(worker.poll() is None, "the same worker did the next one")


main(a_process_for_each, stopped_at_once, whatever_there_is, wrong_devices, too_large_is_refused)
