#!/usr/bin/env bash
# The sandwich training step beside PyTorch on the same cores, alternately in one run: prints every measurement as a JSON line, then ratios.
#
#     tests/bench/compare_cpu.sh [build folder]            ROUNDS=3 THREADS=2 DTYPES="fp32 bf16" by default
#
# PyTorch comes from PyPI into <build>/torch once (or set TORCH_PYTHON); the twin program is $ESPALIER_SHARED/bench/torch_supernet.py.
# Clock times need a machine with nothing else on it; processor time per step, the last columns, holds up better on a shared one.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath "${1:-build}") shared=${ESPALIER_SHARED:-../shared} rounds=${ROUNDS:-3}
export OMP_NUM_THREADS=${THREADS:-2}
twin=$shared/bench/torch_supernet.py ours=$build/tests/bench/bench_sandwich python=${TORCH_PYTHON:-$build/torch/bin/python}
# RUN='chrt -f 1' (root) keeps other processes off the cores while a program runs.
read -ra run <<<"${RUN:-}"
[ -f "$twin" ] || { echo "compare_cpu: $twin is not there: set ESPALIER_SHARED"; exit 77; }
[ -x "$ours" ] || { echo "compare_cpu: $ours is not built"; exit 1; }
if [ ! -x "$python" ]; then
    python3 -m venv "$build/torch"
    "$build/torch/bin/pip" install --quiet torch numpy
fi
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# torch WORKLOAD BATCH DTYPE: the median of its steps, and its processor time per step from two runs of different length.
torch() {
    local short long line
    short=$( { TIMEFORMAT='%U %S'; time CUDA_VISIBLE_DEVICES='' "${run[@]}" "$python" "$twin" --workload "$1" --batch "$2" --dtype "$3" --warmup 1 --steps 1 >/dev/null 2>&1; } 2>&1)
    long=$( { TIMEFORMAT='%U %S'; time CUDA_VISIBLE_DEVICES='' "${run[@]}" "$python" "$twin" --workload "$1" --batch "$2" --dtype "$3" --warmup 1 --steps 4 >"$out.line" 2>/dev/null; } 2>&1)
    line=$(cat "$out.line")
    rm -f "$out.line"
    echo "$line" | python3 -c "
import json, sys
d = json.load(sys.stdin); a = sum(map(float, '$short'.split())); b = sum(map(float, '$long'.split()))
d['cpu_s'] = round((b - a) / 3, 4); d['program'] = 'torch'; print(json.dumps(d))"
}

for ((i = 0; i < rounds; i++)); do
    for work in "fashion 256" "mbconv32 32"; do
        read -r name batch <<<"$work"
        "${run[@]}" "$ours" --workload "$name" --batch "$batch" --warmup 1 --steps 4 --device "cpu:$OMP_NUM_THREADS" | tee -a "$out"
        for dtype in ${DTYPES:-fp32 bf16}; do
            torch "$name" "$batch" "$dtype" | tee -a "$out"
        done
    done
done
python3 - "$out" <<'PYTHON'
import json, statistics as st, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
def column(workload, program, dtype, key):
    return [r[key] for r in rows if r['workload'] == workload and (r.get('program') or 'espalier') == program and r['dtype'] == dtype]
for w in ('fashion', 'mbconv32'):
    ours, cpu = column(w, 'espalier', 'fp32', 'median_s'), column(w, 'espalier', 'fp32', 'cpu_s')
    for t in ('fp32', 'bf16'):
        theirs, their_cpu = column(w, 'torch', t, 'median_s'), column(w, 'torch', t, 'cpu_s')
        if theirs:
            pairs = [b / a for a, b in zip(ours, theirs)]
            print(f"{w}: espalier fp32 {st.median(ours):.3f} s, torch {t} {st.median(theirs):.3f} s per step: {st.median(pairs):.2f} times "
                  f"(rounds {min(pairs):.2f} to {max(pairs):.2f}); processor time {st.median(cpu):.3f} s and {st.median(their_cpu):.3f} s: "
                  f"{st.median(their_cpu) / st.median(cpu):.2f} times")
PYTHON
