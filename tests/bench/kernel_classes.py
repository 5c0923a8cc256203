#!/usr/bin/env python3
"""Sums what Nsight Compute measured of single kernels by class (kernel_classes.sh): launches, time, bytes of device memory, share of issue slots.

    kernel_classes.py FILE.csv          ncu --csv with the metrics that kernel_classes.sh asks for
    kernel_classes.py TRACE STEPS       what kernel_times.sh wrote of so many steps: launches and time a step
"""
import csv
import re
import subprocess
import sys

CLASSES = [  # first match
    ("batch norm, in one", r"whole_kernel"),
    ("batch norm gradient, in one", r"whole_grad_kernel"),
    ("squeeze-excite: sums of a norm", r"squeeze_kernel"),
    ("batch norm: statistics", r"stats_kernel"),
    ("batch norm: apply", r"\bapply_kernel"),
    ("batch norm gradient: sums", r"grad_sums_kernel"),
    ("batch norm gradient: apply", r"grad_apply_kernel"),
    ("depthwise forward and dx, stride 1", r"\brows_kernel<\d+, 1"),
    ("depthwise dw, stride 1", r"dw_rows_kernel<\d+, 1"),
    ("depthwise, stride 2", r"\b(dw_)?rows_kernel<\d+, 2|\brows_dx_kernel"),
    ("depthwise dw: sums of blocks", r"dw_finish"),
    ("depthwise, other", r"\bdw_|forward_kernel|\bdx_kernel"),
    ("pooling and its gradients' sums", r"middle_sum|column_sum|reduce_"),
    ("elementwise", r"\bew_"),
    ("gradient of bias and activation", r"bias_grad"),
    ("columns of the stem", r"im2col|col2im|pack_kernel"),
    ("products", r"nvjet|cutlass|splitK|gemm"),
    ("optimiser", r"update_kernel|norm_kernel|norm_finish"),
]
UNITS = {"Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9, "us": 1e3, "usecond": 1e3, "ms": 1e6, "msecond": 1e6, "s": 1e9}
TIME, READ, WRITE, ISSUE = ("gpu__time_duration.sum", "dram__bytes_read.sum", "dram__bytes_write.sum",
                            "sm__inst_issued.avg.pct_of_peak_sustained_active")


def launches(path):
    """One dictionary of metrics a launch, with its kernel's name; nanoseconds and bytes."""
    with open(path) as f:
        rows = list(csv.reader(line for line in f if line.startswith('"')))
    at = {name: i for i, name in enumerate(rows[0])}
    found = {}
    for row in rows[1:]:
        name = re.sub(r"\((int|bool)\)|void ", "", row[at["Kernel Name"]])
        value = float(row[at["Metric Value"]].replace(",", "") or 0)
        launch = found.setdefault(row[at["ID"]], {"name": name})
        launch[row[at["Metric Name"]]] = value * UNITS.get(row[at["Metric Unit"]], 1)
    return list(found.values())


def kind_of(name):
    return next((c for c, pattern in CLASSES if re.search(pattern, name)), "other: " + name[:40])


def trace(path, steps):
    """Launches and milliseconds a step by class, of lines launches,nanoseconds,mangled name."""
    with open(path) as f:
        rows = [line.rstrip("\n").split(",", 2) for line in f]
    plain = subprocess.run(["c++filt"], input="\n".join(row[2] for row in rows), capture_output=True, text=True, check=True)
    classes = {}
    for row, name in zip(rows, plain.stdout.split("\n")):
        sums = classes.setdefault(kind_of(re.sub(r"\((int|bool)\)|void ", "", name)), [0.0, 0.0])
        sums[0] += int(row[0]) / steps
        sums[1] += int(row[1]) / 1e6 / steps
    print("| class | launches | ms | us each |\n|---|---|---|---|")
    for kind, (n, ms) in sorted(classes.items(), key=lambda item: -item[1][1]):
        print(f"| {kind} | {n:.0f} | {ms:.2f} | {1e3 * ms / n:.1f} |")
    print(f"all: {sum(n for n, _ in classes.values()):.0f} launches, {sum(ms for _, ms in classes.values()):.2f} ms")


def main():
    if len(sys.argv) == 3:
        return trace(sys.argv[1], int(sys.argv[2]))
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    total, classes = 0.0, {}
    for launch in launches(sys.argv[1]):
        sums = classes.setdefault(kind_of(launch["name"]), [0, 0.0, 0.0, 0.0])
        time = launch.get(TIME, 0.0)
        sums[0] += 1
        sums[1] += time
        sums[2] += launch.get(READ, 0.0) + launch.get(WRITE, 0.0)
        sums[3] += launch.get(ISSUE, 0.0) * time
        total += time
    print("| class | launches | ms | GB | TB/s | issue slots |\n|---|---|---|---|---|---|")
    for kind, (n, time, size, issue) in sorted(classes.items(), key=lambda item: -item[1][1]):
        print(f"| {kind} | {n} | {time / 1e6:.2f} | {size / 1e9:.2f} | {size / time / 1e3:.2f} | {issue / time:.0f} % |")
    print(f"all: {total / 1e6:.2f} ms")


main()
