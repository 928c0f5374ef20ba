"""What became of one case of the campaign."""

from __future__ import annotations

from dataclasses import dataclass

ACCEPTED, REFUSED, SKIPPED = "accepted", "refused", "not possible here"
HEALTHY = (ACCEPTED, REFUSED, SKIPPED)


@dataclass(frozen=True)
class Outcome:
    """One case.

    Attributes:
        case: What was done to what; unique within a part for a seed.
        verdict: One of HEALTHY, or the kind of the fault: traceback, crash, hang, memory, executed, wrote outside, …
        message: The product's sentence, or the evidence of a fault.
        seconds: How long the product took.
        memory_mb: The largest resident memory of the process above that of a process that did nothing.
    """

    case: str
    verdict: str
    message: str = ""
    seconds: float = 0.0
    memory_mb: float = 0.0

    @property
    def is_fault(self) -> bool:
        return self.verdict not in HEALTHY


def check(case: str, problem: str | None, message: str = "", seconds: float = 0.0) -> Outcome:
    """An outcome of a check that either holds or has a problem."""
    return Outcome(case, ACCEPTED if problem is None else problem, message, seconds)
