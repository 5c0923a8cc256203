#!/usr/bin/env bash
# The rows of the GPU table beside PyTorch, on one GPU; one JSON line per measurement, ours first.
#   TORCH_TWIN=path/to/torch_supernet.py tests/bench/compare_gpu.sh [BUILD] [DEVICE]
# TORCH_TWIN defaults to bench/torch_supernet.py under ESPALIER_SHARED (default ../shared); without it only our rows are printed.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build} device=${2:-cuda:0}
twin=${TORCH_TWIN:-${ESPALIER_SHARED:-../shared}/bench/torch_supernet.py}
ours() { "$build/tests/bench/bench_sandwich" --device "$device" --precision bf16 "$@"; }
torch() { if [ -f "$twin" ]; then python3 "$twin" "$@"; else echo "no PyTorch twin at $twin"; fi; }
echo "sandwich step, mbconv32, batch 512, steady"
ours --workload mbconv32 --batch 512 --steps 10 --warmup 10
torch --workload mbconv32 --batch 512 --steps 8 --warmup 10
echo "the same, first 10 steps of a run: after a rehearsal as the trainer does it (prepare_s), without"
ours --workload mbconv32 --batch 512 --steps 10 --warmup 0
ours --workload mbconv32 --batch 512 --steps 10 --warmup 0 --rehearse 0
torch --workload mbconv32 --batch 512 --steps 10 --warmup 0
for arch in max min; do
    echo "mbconv224, $arch subnet alone, batch 128"
    ours --workload mbconv224 --batch 128 --single "$arch" --steps 10 --warmup 5
    torch --workload mbconv224 --batch 128 --mode single --arch "$arch" --steps 10 --warmup 5
done
echo "subnet evaluation, mbconv32, 2,048 calibration + 10,000 test images (first_s, next_8_s: those that warm up)"
"$build/tests/bench/bench_evaluate" --space mbconv32 --device "$device" --batch 512 --subnets 8
echo "the same, calibrated in one batch"
"$build/tests/bench/bench_evaluate" --space mbconv32 --device "$device" --batch 2048 --subnets 8
torch --workload mbconv32 --mode eval --batch 512 --subnets 8
gpt() { "$build/tests/bench/bench_gpt" --device "$device" --precision bf16 --batch 16 --steps 10 --warmup 4 "$@"; }
echo "gpt, sandwich step, batch 16 x 1024 tokens"
gpt
torch --workload gpt --batch 16 --steps 10 --warmup 4
echo "gpt, largest subnet alone"
gpt --single max
torch --workload gpt --batch 16 --mode single --arch max --steps 10
torch --workload gpt --batch 16 --mode single --arch max --steps 10 --warmup 5 --compile
