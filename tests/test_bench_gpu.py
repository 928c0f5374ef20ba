"""benchmarks/bench_gpu.py runs all kinds of cases with tiny sizes, here on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def measure(out: Path, *arguments: str, fails: bool = False) -> dict[str, dict[str, float]]:
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_gpu.py"), "--device", "cpu", "--smoke"]
    subprocess.run([*command, "--out", str(out), *arguments], check=not fails, capture_output=True, cwd=ROOT)
    report: dict[str, dict[str, dict[str, float]]] = json.loads((out / "gpu.json").read_text(encoding="utf-8"))
    return report["cases"]


@pytest.mark.slow
@pytest.mark.parametrize("only", ["baseline (eager fp16), 1000", "beam 5"])
def test_a_case_is_measured(tmp_path: Path, only: str) -> None:
    for name, figures in measure(tmp_path, "--only", only).items():
        assert "error" not in figures, f"{name}: {figures}"
        assert figures["video s/s"] > 0


@pytest.mark.slow
def test_a_case_that_fails_does_not_end_the_rest(tmp_path: Path) -> None:
    cases = measure(tmp_path, "--only", "k-means", "--case-limit", "0.1", fails=True)
    assert all("not finished after" in str(figures["error"]) for figures in cases.values())
