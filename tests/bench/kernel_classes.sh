#!/usr/bin/env bash
# What each class of kernels takes of one training step, alone on the device (Nsight Compute replays each launch by itself; times of kernels that overlap in a step are
# not to be had from a trace).  usage: tests/bench/kernel_classes.sh BUILD [bench_sandwich options]; the default is mbconv224, largest, batch 128.
set -euo pipefail
build=${1:?usage: kernel_classes.sh BUILD [bench_sandwich options]}
shift
[ $# -gt 0 ] || set -- --workload mbconv224 --single max --batch 128
out=$(mktemp)
trap 'rm -f "$out"' EXIT
# One step and no warm-up: what a kernel takes by itself does not depend on what was loaded before.
ncu --clock-control none --cache-control none --csv \
  --metrics gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum,sm__inst_issued.avg.pct_of_peak_sustained_active \
  "$build/tests/bench/bench_sandwich" --device "${DEVICE:-cuda:0}" --precision bf16 --keep 0 --rehearse 0 --warmup 0 --steps 1 "$@" > "$out"
python3 "$(dirname "$0")/kernel_classes.py" "$out"
