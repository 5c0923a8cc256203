#!/usr/bin/env bash
# The queue beside others on the same work, alternately in one run; every part whose program is not there is skipped, loudly.
#
#     tests/bench/compare_queue.sh [build folder] [beanstalkd] [trials]        default: both; ROUNDS=3 JOBS=100000 SYNCED=1000 TRIALS=10000 SLOTS=16 MS=100
#
# beanstalkd (Debian): one producer and one consumer, put, reserve and delete pipelined. With -f0 its jobs, as ours, are durable when they are acknowledged: it
# syncs each of them, the coordinator a turn of them (so SYNCED=1000 jobs suffice there). With -F it never syncs, for comparison; ours has no such mode.
# trials: TRIALS of MS milliseconds on SLOTS slots by Ray Tune and Optuna (PyPI, into <build>/tuners once, or set TUNERS_PYTHON) and by espalierd: seconds over the ideal.
# Optuna's with its database on disk (SQLite) and with nothing on disk. LIMIT=1800 seconds at most for each.
# 10,000 trials of 0.1 s on 16 slots are 62.5 s each at best. Needs a machine with nothing else on it.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath "${1:-build}") rounds=${ROUNDS:-3} jobs=${JOBS:-100000}
[ $# = 0 ] || shift
[ $# -gt 0 ] || set -- beanstalkd trials
ours=$build/tests/bench/bench_queue here=$PWD
[ -x "$ours" ] || { echo "compare_queue: $ours is not built"; exit 1; }
dir=$(mktemp -d "$build/compare_queue.XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null || true; cd /; rm -rf "$dir"' EXIT
cd "$dir"
echo "load: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) cores"

beanstalkd_round() { # MODE JOBS
    mkdir -p log
    beanstalkd -l "unix:$dir/socket" -b "$dir/log" "$1" &
    local pid=$!
    echo -n "beanstalkd $1: "
    python3 "$here/tests/bench/compare_beanstalkd.py" "$dir/socket" "$2"
    kill $pid
    wait $pid 2>/dev/null || true
    rm -rf log socket
}

for what in "$@"; do
    case $what in
    beanstalkd)
        if ! command -v beanstalkd >/dev/null; then
            echo "SKIPPED: beanstalkd is not installed (apt-get install beanstalkd)"
            continue
        fi
        for ((i = 0; i < rounds; i++)); do
            "$ours" throughput "$jobs" 1
            beanstalkd_round -f0 "${SYNCED:-1000}"
            beanstalkd_round -F "$jobs"
        done
        ;;
    trials)
        python=${TUNERS_PYTHON:-$build/tuners/bin/python}
        if [ ! -x "$python" ]; then
            python3 -m venv "$build/tuners"
            "$build/tuners/bin/pip" install --quiet 'ray[tune]' optuna || echo "compare_queue: cannot install them"
        fi
        "$ours" trials "${TRIALS:-10000}" "${SLOTS:-16}" "${MS:-100}"
        for tuner in optuna-memory optuna ray; do
            if ! "$python" -c "import ${tuner%-memory}" 2>/dev/null; then
                echo "SKIPPED: $tuner cannot be imported by $python"
                continue
            fi
            timeout "${LIMIT:-1800}" "$python" "$here/tests/bench/compare_tuners.py" "$tuner" "${TRIALS:-10000}" "${SLOTS:-16}" "${MS:-100}" 2>"$tuner.log" ||
                { echo "$tuner: not done within ${LIMIT:-1800} s, or failed:"; tail -3 "$tuner.log"; }
        done
        ;;
    *) echo "compare_queue: \"$what\" is none of beanstalkd, trials"; exit 2 ;;
    esac
done
