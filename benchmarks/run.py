"""Measures the claims about speed against the published behaviour: `make bench`.

    python benchmarks/run.py [--only forward] [--smoke] [--record] [--seconds 20] [--threads 2]

Every `bench_*.py` with a `CLAIM` is one table. The measurements of each round are written to runs/bench/CLAIM.json.
With `--record` the tables go to docs/results.json, and `python docs/generate.py` makes the results page of them.
`--smoke` runs everything with small sizes, once: it shows that the measurements work and says nothing about speed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import LEAST_ROUNDS, ROOT, Case, Claim, machine, measure, result
from record import Cell, record

FOLDER = Path(__file__).resolve().parent
COLUMNS = ["work", "form", "time", "times as fast", "CPU time", "peak memory, GB", "largest difference", "goal"]
CURVE_COLUMNS = ["work", "size", "time, s", "CPU time, s", "peak memory, GB"]
PICTURE = ROOT / "docs" / "pictures" / "growth.png"
GROUP = "Speed against the published system"


def claims() -> dict[str, str]:
    """Id of every claim, and its module."""
    scripts = [path for path in sorted(FOLDER.glob("bench_*.py")) if "\nCLAIM = " in path.read_text(encoding="utf-8")]
    return {path.stem.removeprefix("bench_"): path.stem for path in scripts}


def run_case(module: str, case: Case, given: argparse.Namespace) -> dict[str, Any]:
    """Measure a case and print it."""
    started = time.perf_counter()
    samples = measure(module, case, given.smoke, given.threads, given.seconds, given.rounds)
    floors = {} if case.floor is None else case.floor(given.smoke)
    found = result(case, samples, floors)
    found["threads"] = given.threads
    found["took"] = time.perf_counter() - started
    print(f"{case.title} ({found['took']:.0f} s)", flush=True)
    for name, row in found["forms"].items():
        scale = 1000 if case.unit == "ms" else 1
        compared = "" if row["difference"] is None else f", differs by {row['difference']:.1e}"
        times = "" if row["times"] is None else times_as_fast(row)
        print(
            f"  {name:<24} {row['seconds'] * scale:8.3f} {case.unit} {times:>24}  "
            f"CPU {row['cpu_seconds'] * scale:8.3f} {case.unit}  {row['peak'] / 1e9:5.2f} GB{compared}",
            flush=True,
        )
    for name, why in found["missing"].items():
        print(f"  {name:<24} not measured: {why}", flush=True)
    for name, seconds in found["floors"].items():
        print(f"  floor, {name:<17} {seconds * (1000 if case.unit == 'ms' else 1):8.3f} {case.unit}", flush=True)
    return found


def times_as_fast(row: dict[str, Any]) -> str:
    """The ratio and, if there were enough rounds, its interval."""
    interval = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['times']:.2f} ×{interval}"


def rows(found: dict[str, Any]) -> list[list[Cell]]:
    """The rows of a case in the table: one for each form, and the floors."""
    unit, scale = found["unit"], 1000 if found["unit"] == "ms" else 1

    def duration(seconds: float) -> str:
        return f"{seconds * scale:.3g} {unit}"

    table: list[list[Cell]] = []
    for number, (name, row) in enumerate(found["forms"].items()):
        times: Cell = None
        if number and row["times"] is not None:
            times = times_as_fast(row)
        difference = None if row["difference"] is None else f"{row['difference']:.0e}"
        table.append(
            [
                "" if number else found["title"], name, duration(row["seconds"]), times, duration(row["cpu_seconds"]),
                round(row["peak"] / 1e9, 2), difference, None if number else found["goal"],
            ]
        )  # fmt: skip
    if found["before"] is not None:
        table.insert(1, ["", "the published system itself, earlier", duration(found["before"]), *[None] * 5])
    table += [["", f"floor, {name}", duration(value), *[None] * 5] for name, value in found["floors"].items()]
    table += [["", f"{name}: not measured, {why}", *[None] * 6] for name, why in found["missing"].items()]
    return table


def summary(folder: Path) -> list[list[Cell]]:
    """The table of goals: a row for each case with a baseline, of all measurements in the folder."""
    table: list[list[Cell]] = []
    for name in claims():
        path = folder / f"{name}.json"
        data = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cases": [], "smoke": True}
        table += [] if data["smoke"] else [summary_row(case) for case in data["cases"] if "baseline" in case["forms"]]
    return table


def summary_row(case: dict[str, Any]) -> list[Cell]:
    """One case: the baseline's time, ours in float32 and at its fastest, memory, floors, and the goal."""
    baseline = case["forms"]["baseline"]
    ours = {name: row for name, row in case["forms"].items() if name.startswith("ours")}
    scale = 1000 if case["unit"] == "ms" else 1
    cells: list[Cell] = [case["title"], f"{baseline['seconds'] * scale:.3g} {case['unit']}"]
    fastest = max(ours, key=lambda name: ours[name]["times"])
    for name in (next(iter(ours)), fastest):
        row = ours[name]
        time_ = f"{row['seconds'] * scale:.3g} {case['unit']}"
        label = name.removeprefix("ours").strip(", ")
        suffix = f" ({label})" if name == fastest and label not in ("", "fp32") else ""
        cells.append(f"{times_as_fast(row)}, {time_}{suffix}")
    by_cpu = [
        f"{baseline['cpu_seconds'] / max(ours[name]['cpu_seconds'], 1e-9):.2f} ×"
        for name in (next(iter(ours)), fastest)
    ]
    cells.append("; ".join(dict.fromkeys(by_cpu)))
    least = min(row["peak"] for row in ours.values())
    cells.append(f"{next(iter(ours.values()))['peak'] / baseline['peak']:.2f}; {least / baseline['peak']:.2f}")
    least_time = baseline["cpu_seconds"] / case["threads"]  # of an idle machine
    floors = [f"{least_time / seconds:.1f} × ({name})" for name, seconds in case["floors"].items()]
    return [*cells, "; ".join(floors) or None, case["goal"] or None]


def record_summary(given: argparse.Namespace, hardware: str) -> None:
    """Write the table of goals."""
    record(
        "speed-goals", summary(given.out), group=GROUP, title="All goals", hardware=hardware, command=command(given),
        columns=["work", "baseline", "ours, fp32", "ours, fastest",
                 "by processor time: fp32; fastest", "memory, ours / baseline: fp32; least",
                 "floor: at most", "goal"],
        interval="at least 90 %, order statistics of the rounds' ratios",
        note="The baseline is the published behaviour as plain PyTorch (`benchmarks/baseline`). On a machine that does "
        "other work, processor time says more than the clock. The floor is the time "
        "of the operations of all real frames at the rates of a matrix product and a convolution that are measured in "
        "the same run. The tables below have every form, processor time and the differences of the numbers.",
    )  # fmt: skip


def curve_rows(found: dict[str, Any]) -> list[list[Cell]]:
    """The rows of a growth curve: one for each size."""
    return [
        ["" if number else found["title"], name, *(round(row[key], 2) for key in ("seconds", "cpu_seconds")),
         round(row["peak"] / 1e9, 2)]
        for number, (name, row) in enumerate(found["forms"].items())
    ]  # fmt: skip


def draw(cases: Sequence[dict[str, Any]]) -> None:
    """All growth curves in one picture: time above, memory below, both relative to the smallest size."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(cases), figsize=(3.6 * len(cases), 5), squeeze=False)
    for column, case in zip(axes.T, cases, strict=True):
        sizes = [row["size"] for row in case["forms"].values()]
        times = [row["cpu_seconds"] for row in case["forms"].values()]
        column[0].loglog(sizes, times, "o-", label="CPU time")
        column[0].loglog(sizes, [times[-1] * size / sizes[-1] for size in sizes], ":", label="proportional")
        column[0].set(title=case["title"], ylabel="seconds")
        column[0].legend()
        column[1].semilogx(sizes, [row["peak"] / 1e9 for row in case["forms"].values()], "o-")
        column[1].set(ylabel="peak memory, GB", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=90)


def command(given: argparse.Namespace, name: str | None = None) -> str:
    """What measures a table again."""
    if (given.seconds, given.rounds, given.threads) == (None, LEAST_ROUNDS, _cores()):
        return f"make bench ONLY={name}" if name else "make bench"
    words = [f" --only {name}"] if name else []
    words += [f" --seconds {given.seconds:g}"] if given.seconds is not None else []
    words += [f" --rounds {given.rounds}"] if given.rounds != LEAST_ROUNDS else []
    words += [f" --threads {given.threads}"] if given.threads != _cores() else []
    return f"python benchmarks/run.py{''.join(words)}"


def run_claim(name: str, module: str, given: argparse.Namespace) -> str | None:
    """Measure a claim, write its measurements; returns what failed."""
    claim: Claim = importlib.import_module(module).CLAIM
    print(f"== {claim.title}: {machine(given.threads)}", flush=True)
    before = machine(given.threads)
    found, failures = [], []
    for case in claim.cases:
        try:
            found.append(run_case(module, case, given))
        except RuntimeError as error:
            failures.append(str(error))
            print(f"FAILED: {error}", flush=True)
    loads = [re.search(r"load ([\d.]+)", line) for line in (before, machine(given.threads))]
    load = " to ".join(match[1] for match in loads if match is not None)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"{name}.json"
    data = {"claim": name, "title": claim.title, "machine": before, "load": load, "smoke": given.smoke, "cases": found}
    path.write_text(json.dumps(data, indent=1), encoding="utf-8", newline="\n")
    if claim.curve and not given.smoke and found:
        draw(found)
    if given.record and found:
        record_claim(claim, data, command(given, name))
    return "; ".join(failures) or None


def record_claim(claim: Claim, data: dict[str, Any], measured_by: str) -> None:
    """Write the table of a claim."""
    table = curve_rows if claim.curve else rows
    record(
        f"speed-{data['claim']}", [row for case in data["cases"] for row in table(case)], group=GROUP,
        columns=CURVE_COLUMNS if claim.curve else COLUMNS, title=claim.title, command=measured_by,
        hardware=data["machine"],
        interval=None if claim.curve else "at least 90 %, order statistics of the rounds' ratios",
        note=f"{claim.note} Load of the machine during the measurement: {data['load']}.".strip(),
    )  # fmt: skip


def main() -> None:
    """Measure the claims that are asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="*", default=[], metavar="CLAIM", help=f"of: {', '.join(claims())}")
    options.add_argument("--smoke", action="store_true", help="a dry run with small sizes")
    options.add_argument("--record", action="store_true", help="write the tables into docs/results.json")
    options.add_argument("--seconds", type=float, help="of repetitions for each case; default: the case's own")
    options.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="at least for each case (default 5)")
    options.add_argument("--threads", type=int, default=_cores(), help="of each process; default: all cores")
    options.add_argument("--out", type=Path, default=ROOT / "runs" / "bench", help="folder of the measurements")
    given = options.parse_args()
    if given.smoke and given.record:
        options.error("--smoke measures nothing that could be recorded")
    unknown = [name for name in given.only if name not in claims()]
    if unknown:
        options.error(f"unknown claim '{unknown[0]}'; choose of: {', '.join(claims())}")
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # before PyTorch is imported, which measures the floors' rates
    started = time.perf_counter()
    hardware = machine(given.threads)
    failures = [run_claim(name, module, given) for name, module in claims().items() if name in (given.only or claims())]
    if given.record:
        record_summary(given, hardware)
    print(f"{time.perf_counter() - started:.0f} s; measurements in {given.out}")
    if any(failures):
        sys.exit("\n".join(failure for failure in failures if failure))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
