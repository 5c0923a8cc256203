"""compare_tuners.py ray|optuna|optuna-memory TRIALS SLOTS MS: random search over one number with trials that only wait; prints seconds and the share over the ideal."""
import os
import sys
import tempfile
import time


def by_ray(trials, slots, seconds):
    import ray
    from ray import tune

    def trial(config):
        time.sleep(seconds)
        return {"score": config["x"]}
    ray.init(num_cpus=slots, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        grid = tune.Tuner(trial, param_space={"x": tune.uniform(0, 1)},
                          tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=slots, metric="score", mode="max", reuse_actors=True),
                          run_config=tune.RunConfig(storage_path=folder, verbose=0)).fit()
        took = time.monotonic() - began
    done = sum(r.error is None for r in grid)
    ray.shutdown()
    return took, done


def by_optuna(trials, slots, seconds, durable=True):
    """Threads of one process, and a database on disk, as its documentation has it for one machine, or nothing on disk."""
    import optuna
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def trial(t):
        x = t.suggest_float("x", 0, 1)
        time.sleep(seconds)
        return x
    with tempfile.TemporaryDirectory() as folder:
        study = optuna.create_study(storage="sqlite:///" + os.path.join(folder, "study.db") if durable else None, sampler=optuna.samplers.RandomSampler(1))
        began = time.monotonic()
        study.optimize(trial, n_trials=trials, n_jobs=slots)
        took = time.monotonic() - began
        done = len(study.get_trials(deepcopy=False))
    return took, done


def main():
    name, trials, slots, ms = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    took, done = {"ray": by_ray, "optuna": by_optuna, "optuna-memory": lambda *a: by_optuna(*a, durable=False)}[name](trials, slots, ms / 1000)
    ideal = trials * ms / 1000 / slots
    if done != trials:
        sys.exit("%s: %d of %d trials" % (name, done, trials))
    print("%s: %d trials of %d ms on %d slots: %.2f s, ideal %.2f s: %.2f %% over it" % (name, trials, ms, slots, took, ideal, (took / ideal - 1) * 100),
          flush=True)


main()
