"""Who gets the worker, with the real programs: preemption by priority, and jobs side by side on one device."""
from rig import check, main


def training_job(rig, search):
    return [j for j in rig.ask("show", search)["jobs"] if j["kind"] == "train.supernet"][0]


def the_urgent_search_goes_first(rig):
    rig.coordinator()
    rig.worker()
    plain = rig.submit(rig.search("plain", epochs=150, slice_steps=10000))  # one slice: it gives way at a step, or not at all
    rig.wait(lambda: (training_job(rig, plain)["step"] or 0) > 20, 60, "training")
    job = training_job(rig, plain)
    urgent = rig.submit(rig.search("urgent", seed=4), "--priority", "5")
    rig.wait_done(urgent)
    after = training_job(rig, plain)
    check(rig.state(plain) == "running", "the other one is not over")
    check(after["failures"] == 0 and after["losses"] == 0, "nothing counts against it: %s" % after)
    check(after["attempt"] > job["attempt"] or after["state"] == "ready", "it has been preempted: %s" % after)
    check(after["step"] >= job["step"], "and has lost no step: %s, %s" % (job, after))
    rig.wait_done(plain)
    check("preempted" in rig.good("logs", plain), "the logs say so")
    calm = rig.submit(rig.path("plain.yaml"))
    rig.wait_done(calm)
    check(rig.result(plain, "a") == rig.result(calm, "b"), "the same bits as undisturbed")


def two_jobs_share_a_device(rig):
    rig.coordinator()
    rig.worker("--slots", "2")
    a = rig.submit(rig.search("a", epochs=400, slice_steps=50, evaluations=8))
    b = rig.submit(rig.search("b", seed=4, epochs=400, slice_steps=50, evaluations=8))
    third = rig.submit(rig.search("c", seed=5, epochs=400, slice_steps=50, evaluations=8))

    def moving():
        jobs = [training_job(rig, s) for s in (a, b)]
        return all(j["state"] == "running" and (j["step"] or 0) > 5 for j in jobs)
    rig.wait(moving, 60, "two trainings at once on one worker")
    worker = rig.ask("workers")["workers"]
    check(len(worker) == 1 and len(worker[0]["jobs"]) == 2, "one worker, two jobs: %s" % worker)
    check("busy" in rig.good("why", str(training_job(rig, third)["id"])) or training_job(rig, third)["state"] == "running", "the third waits")
    for s in (a, b, third):
        rig.good("cancel", s)
    path = rig.search("short", seed=7)
    short = [rig.submit(path) for i in range(2)]
    for s in short:
        rig.wait_done(s)
    check(rig.result(short[0], "s0") == rig.result(short[1], "s1"), "side by side, the same search gives the same bits")


main(the_urgent_search_goes_first, two_jobs_share_a_device)
