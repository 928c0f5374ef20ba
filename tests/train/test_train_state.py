"""What a killed process left in a run directory."""

from __future__ import annotations

from pathlib import Path

from avhubert.train.state import remove_leftovers


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "best" / ".model.safetensors.abcd_123.part").mkdir(parents=True)
    (tmp_path / "best" / ".model.safetensors.abcd_123.part" / ".tmpabcdef").touch()
    (tmp_path / "state" / ".step_1.abcd_123.part.pt").touch()
    (tmp_path / "state" / "step_1.pt").touch()
    remove_leftovers(tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "best",
        "state",
        "state/step_1.pt",
    ]
