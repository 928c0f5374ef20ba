"""The measurements of benchmarks/ keep working: every form runs with small sizes and has the baseline's numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.docs.test_benchmarks import ROOT, script

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="the sources are not here")
CLAIMS = ("clip", "cold", "crops", "forward", "growth", "kmeans", "search", "step")


def test_every_claim_is_listed() -> None:
    assert tuple(script("run").claims()) == CLAIMS


@pytest.mark.parametrize("name", sorted({*CLAIMS} - {"cold"}))
def test_every_form_runs_and_agrees(name: str, tmp_path: Path) -> None:
    measure, claim = script("measure"), script(f"bench_{name}").CLAIM
    for case in claim.cases:
        forms = [form for form in case.forms if form.missing is None]
        numbers = {form.name: tmp_path / f"{case.id}-{index}.npy" for index, form in enumerate(forms)}
        for form in forms:
            returned = form.build(True)()
            if returned is not None:
                np.save(numbers[form.name], returned)
        samples = {form.name: measure.Samples() for form in forms}
        if forms[0] is case.forms[0]:
            measure.compare(case, forms, samples, numbers)
        if case.floor is not None:
            assert all(seconds > 0 for seconds in case.floor(True).values())


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *options]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cold", "kmeans"])
def test_a_claim_is_measured_by_processes_in_turn(name: str, tmp_path: Path) -> None:
    done = run("--only", name, "--smoke", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert found["smoke"]
    assert "torch" in found["machine"]
    for case in found["cases"]:
        for form in case["forms"].values():
            assert len(form["wall"]) == 1
            assert form["seconds"] > 0
            assert form["peak"] > 2**25
    if name == "kmeans":
        ours = found["cases"][0]["forms"]["ours"]
        assert ours["times"] > 0
        assert ours["low"] is None, "one round has no interval"


# --------------------------------------------------------------------------- the parts
def test_the_ratio_is_the_median_of_the_rounds() -> None:
    ratio = script("measure").ratio
    assert ratio([2.0, 6.0, 4.0], [1.0, 2.0, 1.0]) == (3.0, None, None)
    assert ratio([2.0, 6.0, 4.0, 5.0, 1.0], [1.0, 2.0, 1.0, 1.0, 1.0]) == (3.0, 1.0, 5.0)
    baseline = [float(value) for value in range(10, 20)]
    times, low, high = ratio(baseline, [1.0] * 10)
    # the median of ten lies between the second and the ninth with a probability of 97.9 %, third and eighth: 89 %
    assert (times, low, high) == (14.5, 11.0, 18.0)


def test_numbers_that_differ_fail(tmp_path: Path) -> None:
    measure = script("measure")
    case = measure.Case("work", "work", [measure.Form("baseline", None), measure.Form("ours", None, 0.1)])
    numbers = {"baseline": tmp_path / "a.npy", "ours": tmp_path / "b.npy"}
    samples = {name: measure.Samples() for name in numbers}
    np.save(numbers["baseline"], np.array([1.0, 2.0]))
    np.save(numbers["ours"], np.array([1.0, 2.05]))
    measure.compare(case, case.forms, samples, numbers)
    assert samples["ours"].difference == pytest.approx(0.05)
    np.save(numbers["ours"], np.array([1.0, 2.2]))
    with pytest.raises(RuntimeError, match="numbers of 'ours' differ from the baseline's by 0\\.2, more"):
        measure.compare(case, case.forms, samples, numbers)
    np.save(numbers["ours"], np.array([1.0]))
    with pytest.raises(RuntimeError, match="by inf"):
        measure.compare(case, case.forms, samples, numbers)


def test_a_worker_that_fails_is_reported(tmp_path: Path) -> None:
    worker = script("measure").Worker("bench_kmeans", "no-such-case", "ours", True, tmp_path, 1)
    with pytest.raises(RuntimeError, match=r"(?s)no-such-case, ours: the process ended with code 1: .*StopIteration"):
        worker.run()
    worker.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "nothing"], "unknown claim 'nothing'; choose of: clip, cold"),
        (["--smoke", "--record"], "--smoke measures nothing that could be recorded"),
    ],
)
def test_wrong_options_are_refused(options: list[str], message: str) -> None:
    done = run(*options)
    assert done.returncode == 2
    assert message in done.stderr


def test_the_table_has_baseline_forms_and_floors() -> None:
    form = {"seconds": 0.5, "cpu_seconds": 0.9, "peak": 2_000_000_000, "difference": None}
    own = form | {"seconds": 0.25, "times": 2.004, "low": 1.9, "high": 2.1, "difference": 4e-6}
    found = {
        "title": "work", "unit": "ms", "goal": "≥ 3 ×", "before": 0.6, "floors": {"fp32": 0.1},
        "forms": {"baseline": form | {"times": 1, "low": 1, "high": 1}, "ours": own}, "missing": {"int8": "no such"},
    }  # fmt: skip
    table = script("run").rows(found)
    assert [row[1] for row in table] == [
        "baseline", "the published system itself, earlier", "ours", "floor, fp32", "int8: not measured, no such",
    ]  # fmt: skip
    assert table[0] == ["work", "baseline", "500 ms", None, "900 ms", 2.0, None, "≥ 3 ×"]
    assert table[2][3] == "2.00 × [1.90, 2.10]"
    assert all(len(row) == len(script("run").COLUMNS) for row in table)


def test_the_table_of_goals_is_made_of_all_measurements(tmp_path: Path) -> None:
    run = script("run")
    form = {"seconds": 0.5, "cpu_seconds": 0.9, "peak": 2_000_000_000, "times": 1.0, "low": 1.0, "high": 1.0}
    ours = form | {"seconds": 0.25, "cpu_seconds": 0.3, "peak": 1_000_000_000, "times": 2.0, "low": 1.9, "high": 2.1}
    bf16 = ours | {"seconds": 0.125, "cpu_seconds": 0.2, "times": 4.0, "low": 3.9, "high": 4.1}
    case = {
        "title": "work", "unit": "s", "goal": "≥ 3 ×", "threads": 2, "floors": {"fp32": 0.1, "bf16": 0.05},
        "forms": {"baseline": form, "ours, fp32": ours, "ours, bf16": bf16},
    }  # fmt: skip
    alone = case | {"forms": {"ours": ours}}  # OpenCV is missing: no baseline
    (tmp_path / "step.json").write_text(json.dumps({"smoke": False, "cases": [case, alone]}), encoding="utf-8")
    (tmp_path / "clip.json").write_text(json.dumps({"smoke": True, "cases": [case]}), encoding="utf-8")
    assert run.summary(tmp_path) == [
        [
            "work", "0.5 s", "2.00 × [1.90, 2.10], 0.25 s", "4.00 × [3.90, 4.10], 0.125 s (bf16)",
            "3.00 ×; 4.50 ×", "0.50; 0.50", "4.5 × (fp32); 9.0 × (bf16)", "≥ 3 ×",
        ]
    ]  # fmt: skip
