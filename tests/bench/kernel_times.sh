#!/usr/bin/env bash
# What each class of kernels takes of a training step, from CUPTI's records of whole steps: seconds where kernel_classes.sh takes minutes, but no bytes and no issue slots.
# Each launch waits for the one before, so that times do not overlap.  usage: tests/bench/kernel_times.sh BUILD [bench_sandwich options]
set -euo pipefail
build=${1:?usage: kernel_times.sh BUILD [bench_sandwich options]}
shift
[ $# -gt 0 ] || set -- --workload mbconv32 --batch 512
here=$(dirname "$0")
cuda=${CUDA_HOME:-/usr/local/cuda}
steps=3
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cc -O2 -shared -fPIC -I"$cuda/include" -o "$out/libkernel_trace.so" "$here/trace/kernel_trace.c" -L"$cuda/lib64" -lcupti
LD_LIBRARY_PATH="$cuda/lib64:${LD_LIBRARY_PATH:-}" KERNEL_TRACE="$out/trace" CUDA_LAUNCH_BLOCKING=1 CUDA_INJECTION64_PATH="$out/libkernel_trace.so" \
  "$build/tests/bench/bench_sandwich" --device "${DEVICE:-cuda:0}" --precision bf16 --keep 0 --rehearse 0 --warmup 0 --steps "$steps" "$@" >&2
python3 "$here/kernel_classes.py" "$out/trace" "$steps"
