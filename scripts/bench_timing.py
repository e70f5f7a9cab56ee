"""Timing for bench.py: contenders in turn, their ratios, the floor, and the table of all rows."""

import json
import os
import statistics
import time
from pathlib import Path

import torch
from bench_peers import Contender


def cpu_seconds() -> float:
    """Return what this process and those that it started have computed, on all cores."""
    return sum(os.times()[:4])


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def time_contenders(
    contenders: dict[str, Contender], repeats: int, device
) -> dict[str, list[tuple[float, float]]]:
    """Return seconds and CPU seconds of each contender, in turn; the first round only warms up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(repeats + 1):
        for name, contender in contenders.items():
            synchronise(device)
            began, worked = time.perf_counter(), cpu_seconds()
            contender()
            synchronise(device)
            if number or repeats == 0:
                times[name].append((time.perf_counter() - began, cpu_seconds() - worked))
    return times


def measure_matrix_rate(device, dtype=torch.float32, size=None) -> float:
    """Return the operations a second of a large matrix product."""
    size = size or (8192 if device.type == "cuda" else 2048)
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = 0.0
    for _ in range(5):
        synchronise(device)
        began = time.perf_counter()
        a @ a
        synchronise(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def time_group(title, contenders, args, device, note="", floor=None, per=None):
    """Time a group of contenders, print the row and return it."""
    both = time_contenders(contenders, args.repeats, device)
    times = {name: [wall for wall, _ in found] for name, found in both.items()}
    worked = {name: statistics.median(cpu for _, cpu in found) for name, found in both.items()}
    per = per or dict.fromkeys(times, 1)
    mine = next(iter(times))
    medians = {name: statistics.median(t) / per[name] for name, t in times.items()}
    row = {
        "part": title,
        "note": note() if callable(note) else note,
        "seconds": {name: [round(t, 5) for t in found] for name, found in times.items()},
        "ratio_to_first": {name: round(m / medians[mine], 3) for name, m in medians.items()},
        "cpu_seconds": {name: round(cpu, 3) for name, cpu in worked.items()},
        "cpu_ratio_to_first": {
            name: round(cpu / per[name] / (worked[mine] / per[mine]), 3)
            for name, cpu in worked.items()
        },
    }
    ratios = {"": row["ratio_to_first"], "cpu_": row["cpu_ratio_to_first"]}
    others = [name for name in times if not name.startswith(mine)]
    for prefix, ratio in ratios.items() if others else ():
        row[f"{prefix}times_the_fastest_other"] = min(ratio[name] for name in others)
    if floor is not None:
        rate = measure_matrix_rate(device)
        row["floor_seconds"] = round(floor / rate, 4)
        row["matrix_rate_gflops"] = round(rate / 1e9, 1)
        row["fraction_of_floor"] = round(floor / rate / statistics.median(times[mine]), 3)
    print(json.dumps(row), flush=True)
    return row


def format_markdown(rows, machine) -> str:
    lines = [
        f"{machine}",
        "",
        "| what | contender | median, s | smallest to largest | times ours | CPU s | times ours "
        "| floor over ours |",
        "| :-- | :-- | --: | --: | --: | --: | --: | --: |",
    ]
    for row in rows:
        for number, (name, times) in enumerate(row["seconds"].items()):
            fraction = row.get("fraction_of_floor")
            lines.append(
                f"| {'' if number else row['part']} | {name} | {statistics.median(times):.3f} | "
                f"{min(times):.3f} to {max(times):.3f} | {row['ratio_to_first'][name]:.2f} | "
                f"{row['cpu_seconds'][name]:.3f} | {row['cpu_ratio_to_first'][name]:.2f} | "
                f"{'' if number or fraction is None else fraction} |"
            )
        lines.append(f"| | *{row['note']}* | | | | | | |")
    return "\n".join(lines) + "\n"


def describe_instructions() -> str:
    """Return the widest instructions here, and what limits oneDNN, if anything."""
    widest = torch.backends.cpu.get_cpu_capability()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = [widest, *(name for name in ("avx512_bf16", "amx_bf16") if name in flags)]
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return " ".join(found) + (f" (oneDNN limited to {limit})" if limit else "")
