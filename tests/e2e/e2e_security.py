"""Over tcp with keys, as between two machines: a whole search; strangers, wrong roles and keys taken back; HTTP with a token."""
import os
import urllib.error
import urllib.request

from rig import check, main
from secure import authorise, be, coordinator, keygen, reload, worker


def a_search_between_two_machines(rig):
    p = coordinator(rig)
    authorise(rig, keygen(rig, "ann", "client"), keygen(rig, "gpu-1", "worker"))
    reload(rig, p)
    be(rig, "ann")
    worker(rig, "gpu-1")
    search = rig.submit(rig.search("tiny"))
    watch = rig.client("watch", search, timeout=120)  # progress comes over the status socket
    check(watch.returncode == 0 and "done" in watch.stdout, watch.stdout + watch.stderr)
    check(rig.row(search)["user"] == "ann", "the user is the key's name, not $USER")
    rig.result(search, "out")  # weights come over the data socket
    second = rig.submit(rig.search("more", epochs=6))
    events = rig.client("watch", "--events", second, timeout=120)
    check(events.returncode == 0 and '"kind":"' in events.stdout.replace(" ", ""), "events arrive: %s" % events.stdout[:300])


def two_keys_say_how_long(rig):
    """One slice is the whole training; the worker of the other key is asked whether it is, has nothing to do, and hands in the very same weights."""
    p = coordinator(rig)
    authorise(rig, keygen(rig, "ann", "client"), keygen(rig, "gpu-1", "worker"), keygen(rig, "gpu-2", "worker"))
    reload(rig, p)
    be(rig, "ann")
    worker(rig, "gpu-1")
    worker(rig, "gpu-2")
    rig.wait(lambda: len([w for w in rig.ask("workers")["workers"] if w["state"] == "idle"]) == 2, 30, "both workers")
    search = rig.submit(rig.search("tiny", slice_steps=1000))
    rig.wait_done(search)
    job = [j for j in rig.ask("show", search)["jobs"] if j["kind"] == "train.supernet"][0]
    check(job["attempt"] == 2 and job["failures"] == 0 and job["step"] == job["steps"] > 10 and job["loss"] > 0, str(job))
    for n in (1, 2):
        with open(rig.path("worker-%d.log" % n)) as f:
            check(f.read().count("kind=train.supernet") == 1, "each had the training once")


def killed_and_started_again(rig):
    """A lease belongs to (uid, key), also after the coordinator was killed."""
    p = coordinator(rig)
    authorise(rig, keygen(rig, "ann", "client"), keygen(rig, "gpu-1", "worker"))
    reload(rig, p)
    be(rig, "ann")
    worker(rig, "gpu-1")
    search = rig.submit(rig.search("tiny", epochs=40))
    for _ in range(2):
        job = lambda: [j for j in rig.ask("show", search)["jobs"] if j["kind"] == "train.supernet"][0]
        before = job()["step"] or 0
        rig.wait(lambda: (job()["step"] or 0) > before or rig.state(search) == "done", 60, "training")
        p.kill()
        p.wait()
        p = rig.start("espalierd", "-c", rig.path("espalierd.yaml"))
    rig.wait_done(search)
    check(all(j["losses"] == 0 for j in rig.ask("show", search)["jobs"]), "no lease was lost: the worker is known again")


def roles(rig):
    p = coordinator(rig, "client_priority_max: 10\nsearches_per_user: 2\n")
    lines = {w: keygen(rig, w, r) for w, r in (("ann", "client"), ("bob", "client"), ("gpu-1", "worker"), ("eve", "client"))}
    authorise(rig, lines["ann"], lines["bob"], lines["gpu-1"])
    reload(rig, p)

    def refused(text, *args):
        r = rig.client(*args)
        check(r.returncode == 1 and text in r.stderr, "%s: exit %d, %r; expected %r" % (args, r.returncode, r.stderr, text))

    be(rig, "eve")
    refused("does not know this key (" + lines["eve"].split()[2], "list")
    be(rig, "gpu-1", "worker")
    refused("the role worker, which may take jobs", "list")
    refused("this needs the role client or admin", "submit", rig.search("w"))
    be(rig, "ann")
    hers = rig.submit(rig.search("hers", epochs=1000), "--priority", "10")
    refused("a client's may be at most 10", "submit", rig.search("high"), "--priority", "11")
    refused("a client's may be at most 10", "priority", hers, "500")
    refused("this needs the role admin", "backup", rig.path("backup"))
    be(rig, "bob")
    refused("is ann's, and bob is a client", "cancel", hers)
    refused("is ann's, and bob is a client", "priority", hers, "-5")
    check(rig.state(hers) == "running", "bob may look, and it still runs")
    rig.submit(rig.search("one", epochs=1000))
    rig.submit(rig.search("two", epochs=1000))
    refused("has 2 searches that are not over, at most 2", "submit", rig.search("three"))
    pretender = worker(rig, "bob", "client")
    check(rig.ends(pretender) == 1, "a client's key is no worker's")
    with open(rig.path("worker-1.log")) as f:
        check("has the role client" in f.read(), "and it is told so")
    be(rig, "admin")
    rig.good("priority", hers, "500")
    rig.good("cancel", hers)
    # Ann's key is taken back; a file with a mistake changes nothing.
    be(rig, "ann")
    again = rig.submit(rig.search("again", epochs=1000))
    watch = rig.start("espalier", "watch", "--events", again, "--endpoint", rig.endpoint, log="watch.log")
    be(rig, "admin")
    path = rig.path("state", "keys", "authorized_keys")
    with open(path) as f:
        before = f.read()
    with open(path, "w") as f:
        f.write(before + "gardener x y\n")
    reload(rig, p)
    rig.good("list")
    with open(path, "w") as f:
        f.write(before.replace(lines["ann"], ""))
    reload(rig, p)
    check(rig.ends(watch, 20) == 1, "who watches with that key is cut off")
    with open(rig.path("watch.log")) as f:
        check("was taken out of the coordinator's authorized_keys" in f.read(), "and told why")
    be(rig, "ann")
    refused("does not know this key", "list")
    be(rig, "bob")
    rig.good("list")
    os.environ["ESPALIER_SERVER_KEY"] = rig.path("home", "bob", "client.pub")
    refused("is the public key of a client, the server's (server.pub) is needed", "list")


def http_with_a_token(rig):
    coordinator(rig)
    with open(rig.path("state", "keys", "http.token")) as f:
        token = f.read().strip()

    def get(path, **headers):
        try:
            with urllib.request.urlopen(urllib.request.Request("http://" + rig.http + path, headers=headers), timeout=10) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    check(get("/healthz") == (200, "ok\n"), "health needs no token")
    check(get("/metrics")[0] == 401, "metrics do")
    check(get("/metrics", Authorization="Bearer " + "0" * 64)[0] == 401, "the right one")
    code, text = get("/metrics", Authorization="Bearer " + token)
    check(code == 200 and "espalier_refused_total 0" in text, text)
    check(get("/metrics?token=" + token)[0] == 200, "or as an argument")


main(a_search_between_two_machines, two_keys_say_how_long, killed_and_started_again, roles, http_with_a_token)
