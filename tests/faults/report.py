"""docs/reliability.json, the counts of the campaign, and docs/reliability.md, the page made from it."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.outcome import HEALTHY, Outcome
from tests.faults.part import Part

FAULTS_LISTED = 20


@dataclass(frozen=True)
class PartResult:
    """The counts of one part.

    Attributes:
        verdicts: How often each verdict came.
        faults: The first faults, with their messages.
        seconds: Of all cases.
        slowest: Seconds of the slowest case.
        largest: MB of the case with most memory.
    """

    name: str
    title: str
    cases: int
    verdicts: dict[str, int]
    seconds: float
    slowest: float
    largest: float
    seed: int
    commit: str
    machine: str
    date: str
    faults: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, part: Part, outcomes: Sequence[Outcome], seed: int, commit: str, machine: str) -> PartResult:
        faults = [f"{o.case}: {o.verdict}: {' '.join(o.message.split())[-300:]}" for o in outcomes if o.is_fault]
        return cls(
            name=part.name,
            title=part.title,
            cases=len(outcomes),
            verdicts=dict(sorted(Counter(outcome.verdict for outcome in outcomes).items())),
            seconds=round(sum(outcome.seconds for outcome in outcomes), 1),
            slowest=round(max((outcome.seconds for outcome in outcomes), default=0.0), 1),
            largest=round(max((outcome.memory_mb for outcome in outcomes), default=0.0)),
            seed=seed,
            commit=commit,
            machine=machine,
            date=datetime.date.today().isoformat(),
            faults=faults[:FAULTS_LISTED],
        )

    @property
    def fault_count(self) -> int:
        return sum(count for verdict, count in self.verdicts.items() if verdict not in HEALTHY)

    def summary(self) -> str:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in self.verdicts.items())
        return (
            f"{self.name}: {self.cases} cases in {self.seconds / 60:.1f} min: {counts}; slowest {self.slowest} s, "
            f"largest {self.largest:.0f} MB; {self.fault_count} faults"
        )


def write_report(docs: Path, result: PartResult) -> None:
    """Replace one part in reliability.json and write reliability.md."""
    path = docs / "reliability.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["parts"] = {**stored["parts"], result.name: dataclasses.asdict(result)}
    path.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (docs / "reliability.md").write_text(page(path), encoding="utf-8")


def page(path: Path) -> str:
    """The Markdown page of a reliability.json."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    results = [PartResult(**values) for values in stored["parts"].values()]
    lines = [
        "# Campaign of faults",
        "",
        "`make torture` damages the inputs of every command, kills it, and takes disk and memory away; what must hold",
        "stands beside each part. It writes this page, from `docs/reliability.json`. `make torture PART=kills` runs",
        "one part; an interrupted part goes on where it stopped. A short form of each part is in `tests/faults`.",
        "[Reliability](explanation/reliability.md) says what the commands promise.",
        "",
        "| part | what is done, what must hold | cases | outcomes | faults | slowest | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in result.verdicts.items())
        lines.append(
            f"| `{result.name}` | {result.title} | {result.cases:,} | {counts} | {result.fault_count} | "
            f"{result.slowest:.1f} s | {result.largest:,.0f} MB |"
        )
    lines += ["", "| part | date | commit | seed | minutes | machine |", "|---|---|---|---|---|---|"]
    for result in results:
        lines.append(
            f"| `{result.name}` | {result.date} | {result.commit} | {result.seed} | {result.seconds / 60:.1f} | "
            f"{result.machine} |"
        )
    faults = [f"- `{result.name}` {fault}" for result in results for fault in result.faults]
    lines += ["", "## Faults that are not repaired", "", *(faults or ["None."])]
    lines += ["", "## Found and repaired", ""]
    lines += ["| part | fault | repair at the root |", "|---|---|---|"]
    lines += [f"| `{row['part']}` | {row['fault']} | {row['repair']} |" for row in stored["repaired"]]
    return "\n".join(lines) + "\n"
