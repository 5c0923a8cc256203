"""What a coordinator tells over HTTP: /api as JSON, the live page, /metrics as Prometheus reads them."""
import concurrent.futures
import html.parser
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request

from rig import check, main, say


def coordinator(rig, more=""):
    rig.write("espalierd.yaml", "dir: {0}/state\ncontrol: ipc://{0}/control\ndata: ipc://{0}/data.sock\nstatus: ''\nhttp: 127.0.0.1:0\n"
              "lease_ms: 4000\nheartbeat_ms: 300\n{1}".format(rig.dir, more))
    p = rig.start("espalierd", "-c", rig.path("espalierd.yaml"))
    rig.wait(lambda: p.poll() is not None or rig.client("list").returncode == 0, 30)
    check(p.poll() is None, "it started")
    with open(rig.path("espalierd.log")) as f:
        rig.http = "http://" + re.search(r"http=(\S+)", f.read()).group(1)
    return p


def get(rig, path, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(rig.http + path, headers=headers), timeout=20) as r:
            return r.status, dict(r.headers), r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, dict(e.headers), e.read().decode()


def ask(rig, path, want=200):
    code, headers, text = get(rig, path)
    check(code == want, "%s: %d %s" % (path, code, text))
    check(headers["Content-Type"] == "application/json", "%s is JSON: %s" % (path, headers))
    return json.loads(text)


def api(rig):
    coordinator(rig)
    rig.worker("--name", "gardener")
    search = rig.submit(rig.search("small", epochs=6))
    rig.wait_done(search)
    second = rig.submit(rig.search("long", epochs=5000, slice_steps=20))
    rig.wait(lambda: len(ask(rig, "/api/searches/%s/curves" % second)["loss"]) > 2, 60, "a curve")
    rows = ask(rig, "/api/searches")["searches"]
    check([r["name"] for r in rows] == ["long", "small"] and rows[1]["state"] == "done", str(rows))
    check([r["name"] for r in ask(rig, "/api/searches?limit=1&after=2")["searches"]] == ["small"], "limit and after")
    check(ask(rig, "/api/searches/" + search) == rig.ask("show", search), "the same as the client sees")
    check(ask(rig, "/api/searches/%s/pareto" % search) == rig.ask("pareto", search), "the front")
    result = ask(rig, "/api/searches/%s/result" % search)
    check(result["front"] and result["evaluations"] == 24, str(result))
    curves = ask(rig, "/api/searches/%s/curves" % search)
    check([e[0] for e in curves["evaluations"]] == list(range(24)) and all(0 <= e[1] <= 1 and e[2] > 0 for e in curves["evaluations"]), str(curves))
    check([p[1] for p in curves["loss"]] == sorted(p[1] for p in curves["loss"]) and len(curves["loss"]) >= 3, str(curves["loss"]))
    events = ask(rig, "/api/searches/%s/events" % search)["events"]
    check(events and ask(rig, "/api/searches/%s/events?after=%d&limit=2" % (search, events[0]["event"]))["events"] == events[1:3], str(events)[:500])
    check(ask(rig, "/api/events?limit=1") == {"oldest": 1, "events": ask(rig, "/api/events")["events"][:1]}, "events of all")
    workers = ask(rig, "/api/workers")["workers"]
    check([w["name"] for w in workers] == ["gardener"], str(workers))
    job = ask(rig, "/api/searches/" + search)["jobs"][0]["id"]
    one = ask(rig, "/api/jobs/%d" % job)
    check(one["jobs"][0]["kind"] == "train.supernet" and one["text"] == "is done" and str(one["search"]) == search, str(one))
    check(ask(rig, "/api/status")["workers"] == 1, "status")
    for path, code in (("/api/searches/99", 404), ("/api/jobs/99999", 404), ("/api/nonsense", 404), ("/api", 404), ("/api/searches/0", 404),
                       ("/api/searches/%s/result" % second, 409), ("/api/searches/x", 404), ("/api/searches?limit=x", 404),
                       ("/api/searches/99999999999999999999", 404)):
        check("text" in ask(rig, path, code)["error"], path)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: get(rig, "/api/searches/%s" % search)[0], range(160)))
    check(answers.count(200) == 160, "many at once: %s" % {c: answers.count(c) for c in set(answers)})


def page(rig):
    p = coordinator(rig)
    rig.worker("--name", "<b>gardener</b>")
    search = rig.submit(rig.search("page", epochs=6))
    rig.wait_done(search)
    code, headers, text = get(rig, "/")
    check(code == 200 and headers["Content-Type"].startswith("text/html"), str(headers))
    check("default-src 'none'" in headers["Content-Security-Policy"] and "connect-src 'self'" in headers["Content-Security-Policy"], str(headers))
    check(not re.search(r"(?i)https?:|(?:src|href)\s*=\s*[\"']?//|@import", text) and "url(" not in text, "nothing comes from elsewhere")

    class Parser(html.parser.HTMLParser):
        void, open, ids = {"meta", "link", "br"}, [], set()

        def handle_starttag(self, tag, attrs):
            attrs = dict(attrs)
            check(attrs.get("id") not in self.ids or "id" not in attrs, "an id twice: %s" % attrs)
            self.ids.add(attrs.get("id"))
            if tag not in self.void:
                self.open.append(tag)

        def handle_endtag(self, tag):
            check(self.open and self.open.pop() == tag, "</%s> closes nothing" % tag)
    parser = Parser()
    parser.feed(text)
    parser.close()
    check(not parser.open and {"loss", "evals", "front", "searches", "workers"} <= parser.ids, "well-formed: %s" % parser.open)
    used = set(re.findall(r'\$\("([\w-]+)"\)', text))
    check(used <= parser.ids, "the script's elements are there: %s" % (used - parser.ids))
    if not shutil.which("node"):
        say("        SKIPPED: no node: the page's script was not run")
        return
    here = os.path.dirname(os.path.abspath(__file__))
    r = subprocess.run(["node", os.path.join(here, "page_dom.js"), rig.http + "/"], capture_output=True, text=True, timeout=60)
    check(r.returncode == 0, r.stderr)
    seen = json.loads(r.stdout)
    check(not seen["bad"] and seen["state"].startswith("1 workers"), str(seen))
    check(seen["searches"][0][:4] == ["1", "page", seen["searches"][0][2], "done"], str(seen["searches"]))
    check(seen["workers"][0][1] == "<b>gardener</b>", "names are text: %s" % seen["workers"])
    front = rig.ask("pareto", search)["result"]["front"]
    check(len(seen["members"]) == len(front) == seen["front"]["front"] and seen["members"][0][-1] == front[0]["architecture"], str(seen["members"]))
    check(seen["evals"]["dots"] == 24 and seen["loss"]["lines"] and seen["loss"]["lines"][0] >= 3, str(seen))
    p.terminate()
    check(rig.ends(p) == 0, "ends cleanly with a browser open")


def token(rig):
    coordinator(rig, "http_token: always\n")
    with open(rig.path("state", "keys", "http.token")) as f:
        secret = f.read().strip()
    for path in ("/", "/api/searches", "/metrics"):
        check(get(rig, path)[0] == 401, path)
        check(get(rig, path + "?token=" + secret)[0] == 200, path + " with the token")
        check(get(rig, path, Authorization="Bearer " + secret)[0] == 200, path + " with the header")
    check(get(rig, "/healthz")[0] == 200, "health needs none")


NAME, LABELS = r"[a-zA-Z_:][a-zA-Z0-9_:]*", r'(?:\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*"(?:,|(?=\})))*\})?'


def parse_metrics(text):
    """What promtool checks of the text format: every line, one HELP and TYPE before a family's samples, families together, no sample twice, histograms whole."""
    check(text.endswith("\n"), "the last line ends")
    types, helps, samples, family = {}, set(), {}, None
    for line in text.splitlines():
        m = re.fullmatch(r"# (HELP|TYPE) (%s) (.*)" % NAME, line)
        if m:
            what, name, rest = m.groups()
            check(rest.strip(), "says something: %s" % line)
            if what == "TYPE":
                check(rest in ("counter", "gauge", "histogram", "summary"), line)
                check(name not in types, "one TYPE: %s" % line)
                types[name] = rest
                family = name
            else:
                check(name not in helps, "one HELP: %s" % line)
                helps.add(name)
            continue
        m = re.fullmatch(r"(%s)(%s) (-?[0-9.]+(?:e[-+]?[0-9]+)?|NaN|[+-]Inf)" % (NAME, LABELS), line)
        check(m, "a sample: %r" % line)
        name, labels, value = m.groups()
        base = re.sub(r"_(bucket|sum|count)$", "", name) if types.get(re.sub(r"_(bucket|sum|count)$", "", name)) == "histogram" else name
        check(base == family and base in helps, "below its own TYPE and HELP: %s" % line)
        check((types[base] == "counter") == name.endswith("_total") or types[base] == "histogram", "counters, and they alone, end in _total: %s" % line)
        check((name, labels) not in samples, "twice: %s" % line)
        samples[name, labels] = float(value)
    for name, kind in types.items():
        if kind == "histogram":
            buckets = [(float(re.search(r'le="([^"]+)"', k[1]).group(1).replace("+Inf", "inf")), v) for k, v in samples.items() if k[0] == name + "_bucket"]
            check(buckets == sorted(buckets) and [v for _, v in buckets] == sorted(v for _, v in buckets), "cumulative: %s" % buckets)
            check(buckets[-1][0] == float("inf") and buckets[-1][1] == samples[name + "_count", ""], "+Inf is the count: %s" % name)
            check((name + "_sum", "") in samples, "a sum: %s" % name)
    return {k[0] + k[1]: v for k, v in samples.items()}


def metrics(rig):
    coordinator(rig)
    before = parse_metrics(get(rig, "/metrics")[2])
    check(before['espalier_jobs_live{state="running",kind="train.supernet"}'] == 0, str(before))
    rig.worker("--name", 'a "quoted" \\ worker')
    search = rig.submit(rig.search("small", epochs=6))
    rig.wait_done(search)
    second = rig.submit(rig.search("long", epochs=5000, slice_steps=100000))
    live = 'espalier_jobs_live{state="running",kind="train.supernet"}'
    rig.wait(lambda: parse_metrics(get(rig, "/metrics")[2])[live] == 1, 30, "a running job")

    def aged():
        m = parse_metrics(get(rig, "/metrics")[2])
        return m if m["espalier_oldest_lease_seconds"] > 1 and any(k.startswith("espalier_worker_busy_seconds_total") and v > 1 for k, v in m.items()) else None
    rig.wait(aged, 30, "a lease to age")
    m = aged()
    check(m['espalier_searches{state="done"}'] == 1 and m['espalier_searches{state="running"}'] == 1, str(m))
    check(m['espalier_jobs{state="done"}'] == len(rig.ask("show", search)["jobs"]), "done jobs")
    ended = {k: v for k, v in m.items() if k.startswith("espalier_jobs_ended_total")}
    check(ended['espalier_jobs_ended_total{kind="train.supernet",outcome="done"}'] == 1 and
          ended['espalier_jobs_ended_total{kind="eval.subnets",outcome="done"}'] >= 3, str(ended))
    check(m["espalier_commit_seconds_count"] > 10 and m["espalier_commit_seconds_sum"] > 0, "commits")
    worker = '{worker="1",name="a \\"quoted\\" \\\\ worker",device="cpu"}'
    check(m["espalier_worker_leases" + worker] == 1 and m["espalier_worker_busy_seconds_total" + worker] > 1, str([k for k in m if "worker_" in k]))
    check(m["espalier_leases"] == 1 and m["espalier_weights_versions"] >= 3 and m["espalier_weights_bytes"] > 0, "the rest")
    check("espalier_backup_age_seconds" not in m, "no backup yet")
    rig.good("backup")
    rig.wait(lambda: 0 <= parse_metrics(get(rig, "/metrics")[2]).get("espalier_backup_age_seconds", -1) < 60, 20, "the backup's age")
    rig.good("cancel", second)


main(api, page, token, metrics)
