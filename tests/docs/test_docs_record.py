"""benchmarks/record.py: an entry is added or replaced, other entries stay as they are."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("record", ROOT / "benchmarks" / "record.py")
assert spec is not None
assert spec.loader is not None
record = importlib.util.module_from_spec(spec)
spec.loader.exec_module(record)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A copy of the committed results."""
    path = tmp_path / "results.json"
    path.write_text(record.RESULTS.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def test_the_committed_file_is_written_as_it_is(results: Path) -> None:
    entries = record.read(results)
    assert len(entries) > 30
    for entry in entries.values():
        assert set(entry) <= {*record.FIELDS, "rows"}
        assert {"id", "group", "title", "command", "hardware", "date", "columns", "rows"} <= set(entry)
        assert all(len(row) == len(entry["columns"]) for row in entry["rows"])
    before = results.read_text(encoding="utf-8")
    record.write(list(entries.values()), results)
    assert results.read_text(encoding="utf-8") == before


def test_an_entry_is_replaced_and_keeps_its_texts(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/bench_manifest.py", "--lines", "5", "--record"])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = record.read(results)
    record.record("manifest", [["ours", 9.5]], path=results)
    after = record.read(results)
    assert after["manifest"]["rows"] == [["ours", 9.5]]
    assert after["manifest"]["command"] == "python benchmarks/bench_manifest.py --lines 5"
    assert after["manifest"]["title"] == before["manifest"]["title"]
    assert "CPU cores" in after["manifest"]["hardware"]
    assert [name for name in before if before[name] != after[name]] == ["manifest"]
    assert list(after) == list(before)


def test_a_new_entry_needs_its_texts_and_rows_their_cells(results: Path) -> None:
    with pytest.raises(ValueError, match="the new entry 'new' needs group, title, columns"):
        record.record("new", [["a", 1]], path=results)
    with pytest.raises(ValueError, match="has not 3 cells"):
        record.record("new", [["a", 1]], group="G", title="T", columns=["", "x", "y"], path=results)
    record.record("new", [["a", 1]], group="G", title="T", columns=["", "x"], seeds=[1, 2], path=results)
    assert list(record.read(results))[-1] == "new"


def test_evaluations_become_a_table(tmp_path: Path) -> None:
    def result(modality: str, wer: float, snr: int | None = None, fault: str | None = None) -> dict:
        row = {"modality": modality, "snr": snr, "noise": "babble" if snr is not None else None, "fault": fault}
        return row | {"wer": wer, "interval": [wer - 1.04, wer + 2.0]}

    path = tmp_path / "results.json"
    path.write_text(
        json.dumps({"results": [result("av", 25.0, snr=0), result("a", 24.13), result("av", 21.9)]}), encoding="utf-8"
    )
    columns, rows = record.evaluation_table([path])
    assert columns == ["", "A", "AV"]
    assert rows == [
        ["clean", {"value": 24.1, "low": 23.1, "high": 26.1}, {"value": 21.9, "low": 20.9, "high": 23.9}],
        ["babble, 0 dB", None, {"value": 25.0, "low": 24.0, "high": 27.0}],
    ]
