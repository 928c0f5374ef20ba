"""The campaign of faults: `python -m tests.faults.campaign` (or `make torture`), one part with `--part NAME`.

Each part runs its cases one after the other, writes every outcome to FOLDER/PART-SEED-COMMIT.jsonl, and so goes on
where it was interrupted. At the end of a part its counts are written to docs/reliability.json, and the page
docs/reliability.md is made from that.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from pathlib import Path

from tests.faults import (
    broken_training,
    busy_server,
    damaged_media,
    flipped_bits,
    fuzzed_files,
    killed_commands,
    random_batches,
    scarce_system,
)
from tests.faults.outcome import Outcome
from tests.faults.part import Case, Part
from tests.faults.report import PartResult, write_report

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    *(fuzzed_files, flipped_bits, killed_commands, scarce_system),
    *(broken_training, random_batches, damaged_media, busy_server),
)
PARTS: dict[str, Part] = {module.PART.name: module.PART for module in MODULES}


def main() -> int:
    options = _options()
    failed = 0
    for name in options.part or PARTS:
        part = PARTS[name]
        count = options.cases or max(1, round(part.cases * options.scale))
        try:
            failed += run_part(part, count, options)
        except Exception:  # the other parts still run
            print(f"{part.name} cannot run:\n{traceback.format_exc()}", flush=True)
            failed += 1
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign")
    parser.add_argument("--part", action="append", choices=PARTS, help="run this part only (repeatable)")
    parser.add_argument("--cases", type=int, help="number of cases of each part (default: that of the long form)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the long form's cases")
    parser.add_argument("--only", type=int, help="run the case of this number again and print it")
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "torture")
    parser.add_argument("--no-report", action="store_true", help="leave docs/reliability.json as it is")
    return parser.parse_args()


def run_part(part: Part, count: int, options: argparse.Namespace) -> int:
    """Run the cases that are not done yet; returns the number of faults."""
    folder = options.folder / part.name
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{part.name}: {count} cases, seed {options.seed}; preparing", flush=True)
    case = part.make(folder, options.seed)
    if options.only is not None:
        outcome = case(options.only)
        print(json.dumps(dataclasses.asdict(outcome), indent=1))
        return int(outcome.is_fault)
    try:
        return _run_cases(part, case, count, folder, options)
    finally:
        getattr(case, "close", lambda: None)()


def _run_cases(part: Part, case: Case, count: int, folder: Path, options: argparse.Namespace) -> int:
    journal = folder / f"{part.name}-{options.seed}-{_commit()}.jsonl"
    outcomes = _read(journal)[:count]
    if outcomes:
        print(f"{part.name}: {len(outcomes)} cases were done before")
    started, first = time.monotonic(), len(outcomes)
    with open(journal, "a", encoding="utf-8") as log:
        for number in range(first, count):
            begun = time.monotonic()
            try:
                outcome = case(number)
            except Exception:  # of the campaign itself: the other cases still run
                outcome = Outcome(f"{number}", "case fails", traceback.format_exc()[-600:])
            if not outcome.seconds:
                outcome = dataclasses.replace(outcome, seconds=time.monotonic() - begun)
            outcomes.append(outcome)
            log.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
            log.flush()
            if outcome.is_fault:
                print(f"\nFAULT {outcome.case}: {outcome.verdict}: {outcome.message}", flush=True)
            _show_progress(part.name, number + 1, count, first, started)
    print()
    result = PartResult.of(part, outcomes, options.seed, _commit(), _machine())
    print(result.summary())
    if not options.no_report:
        write_report(ROOT / "docs", result)
    return result.fault_count


def _read(journal: Path) -> list[Outcome]:
    """Outcomes of an interrupted run; a line that is torn is left out with what follows it."""
    outcomes: list[Outcome] = []
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []:
        try:
            outcomes.append(Outcome(**json.loads(line)))
        except ValueError:
            break
    return outcomes


def _show_progress(name: str, done: int, count: int, first: int, started: float) -> None:
    seconds = time.monotonic() - started
    left = seconds / (done - first) * (count - done)
    end = "\r" if sys.stdout.isatty() else "\n"
    if sys.stdout.isatty() or done == count or done % max(1, count // 20) == 0:
        print(
            f"{name}: {done} of {count}, {seconds / 60:.1f} min, about {left / 60:.1f} min left ", end=end, flush=True
        )


def _commit() -> str:
    """The newest commit of code or tests; with the time of the newest change if files differ from it."""
    try:
        name = _git("log", "-1", "--format=%h", "--", "avhubert", "tests")
        changed = _git("status", "--porcelain", "--", "avhubert", "tests")
    except OSError:
        return "unknown"
    if changed:
        newest = max(path.stat().st_mtime_ns for top in ("avhubert", "tests") for path in (ROOT / top).rglob("*.py"))
        name += f"-changed-{newest % 10**12}"
    return name or "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def _machine() -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    system = f"{platform.system()} {platform.machine()}"
    return f"{system}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
