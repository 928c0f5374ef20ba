"""Writes a measurement into docs/results.json, from which the results page is made.

From a measuring script:

    record("kmeans-memory", [["peak resident memory, GB", 0.51]], columns=["", "value"], title=…, group=…)

From the `results.json` of `avhubert evaluate`, one row per condition, one column per modality:

    python benchmarks/record.py demo-wer runs/demo/evaluation/*/results.json --command "make demo" --seeds 1

Then run `python docs/generate.py`. The scripts in benchmarks/ record their measurements with `--record`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results.json"
# a number, text, nothing, or a value with its interval: {"value": 24.1, "low": 20.7, "high": 27.8}
Cell = float | int | str | None | dict[str, float]
# what an entry may have, in the order of the file
FIELDS = ("id", "group", "title", "command", "hardware", "date", "seeds", "unit", "interval", "goal", "note", "columns")


def record(
    identifier: str,
    rows: Sequence[Sequence[Cell]],
    *,
    columns: Sequence[str] | None = None,
    group: str | None = None,
    title: str | None = None,
    command: str | None = None,
    hardware: str | None = None,
    seeds: Sequence[int] | None = None,
    unit: str | None = None,
    interval: str | None = None,
    goal: str | None = None,
    note: str | None = None,
    path: Path = RESULTS,
) -> dict[str, Any]:
    """Add or replace one entry of the results; what is not given keeps the entry's earlier value.

    Args:
        identifier: the entry's name, used in links to it: lower case and hyphens.
        rows: the table; the first cell of a row is its label.
        columns: headings of the table, as many as cells in a row.
        group: heading under which the entry is shown.
        title: heading of the entry.
        command: what measures it again; default: this process's command line.
        hardware: default: this machine's, see `describe_hardware`.
        seeds: of the trainings; leave out where nothing is random.
        unit: of the numbers in the table.
        interval: what the intervals are, for example "95 %, bootstrap over utterances".
        goal: what was aimed at, and whether it is reached.
        note: anything that the table does not say.
        path: the file.

    Returns:
        The entry.

    Raises:
        ValueError: a new entry without group, title or columns; a row whose length is not that of the columns.
    """
    entries = read(path)
    given = {
        "id": identifier, "group": group, "title": title, "command": command or _command_line(),
        "hardware": hardware or describe_hardware(), "date": datetime.date.today().isoformat(),
        "seeds": list(seeds) if seeds is not None else None, "unit": unit, "interval": interval, "goal": goal,
        "note": note, "columns": list(columns) if columns is not None else None,
    }  # fmt: skip
    entry = entries.get(identifier, {}) | {name: value for name, value in given.items() if value is not None}
    missing = [name for name in ("group", "title", "columns") if name not in entry]
    if missing:
        raise ValueError(f"the new entry '{identifier}' needs {', '.join(missing)}")
    for row in rows:
        if len(row) != len(entry["columns"]):
            raise ValueError(f"{identifier}: the row {row} has not {len(entry['columns'])} cells")
    entry["rows"] = [list(row) for row in rows]
    entries[identifier] = entry
    write(list(entries.values()), path)
    return entry


def read(path: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Identifier → entry, in the order of the file."""
    return {entry["id"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}


def write(entries: Sequence[dict[str, Any]], path: Path = RESULTS) -> None:
    """The file, one field or row a line, so that a change is readable in a diff."""
    blocks = []
    for entry in entries:
        lines = [f"  {json.dumps(name)}: {_json(entry[name])}" for name in FIELDS if name in entry]
        rows = ",\n".join(f"   {_json(row)}" for row in entry["rows"])
        blocks.append(" {\n" + ",\n".join([*lines, f'  "rows": [\n{rows}\n  ]']) + "\n }")
    path.write_text("[\n" + ",\n".join(blocks) + "\n]\n", encoding="utf-8", newline="\n")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _command_line() -> str:
    script = Path(sys.argv[0])
    name = f"benchmarks/{script.name}" if script.parent.name == "benchmarks" else script.name
    threads = [f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}"] if "OMP_NUM_THREADS" in os.environ else []
    return shlex.join([*threads, "python", name, *(word for word in sys.argv[1:] if word != "--record")])


def describe_hardware() -> str:
    """Processor cores that this process may use, and the GPU if PyTorch is loaded and finds one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "no GPU"
    return f"{cores} CPU cores ({platform.machine()}), {gpu}"


def evaluation_table(paths: Sequence[Path]) -> tuple[list[str], list[list[Cell]]]:
    """Columns and rows of word error rates in `results.json` files: conditions down, modalities across."""
    rates: dict[str, dict[str, Cell]] = {}
    for path in paths:
        for result in json.loads(path.read_text(encoding="utf-8"))["results"]:
            noise = None if result["snr"] is None else f"{result['noise'] or 'noise'}, {result['snr']} dB"
            low, high = (round(bound, 1) for bound in result["interval"])
            cell: Cell = {"value": round(result["wer"], 1), "low": low, "high": high}
            rates.setdefault(noise or result["fault"] or "clean", {})[result["modality"]] = cell
    modalities = [name for name in ("a", "v", "av") if any(name in row for row in rates.values())]
    rows = [[label, *(row.get(name) for name in modalities)] for label, row in sorted(rates.items(), key=_clean_first)]
    return ["", *(name.upper() for name in modalities)], rows


def _clean_first(item: tuple[str, object]) -> bool:
    return item[0] != "clean"


def main() -> None:
    """Record evaluations."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("id", help="entry of docs/results.json")
    options.add_argument("results", nargs="+", type=Path, help="results.json files of `avhubert evaluate`")
    options.add_argument("--command", required=True, help="the command that makes the figures again")
    options.add_argument("--seeds", type=int, nargs="+", required=True, help="seeds of the training")
    options.add_argument("--group", help="heading, for a new entry")
    options.add_argument("--title", help="for a new entry")
    options.add_argument("--note")
    given = options.parse_args()
    columns, rows = evaluation_table(given.results)
    record(
        given.id, rows, columns=columns, command=given.command, seeds=given.seeds, group=given.group,
        title=given.title, note=given.note, unit="WER, %", interval="95 %, bootstrap over utterances",
    )  # fmt: skip


if __name__ == "__main__":
    main()
