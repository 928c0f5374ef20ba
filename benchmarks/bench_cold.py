"""Whole commands in a cold process: features of a clip of 3 s, and the decoding of 12 clips."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from fixtures import scratch
from measure import Case, Claim, Form

# this module imports no PyTorch: a child's peak of memory would begin with the worker's
NO_OPENCV = None if find_spec("cv2") else "OpenCV is not installed (requirements/bench.txt)"
LENGTHS = [60, 75, 90, 65, 80, 70, 85, 75, 60, 100, 75, 88]
EXTRACT = "import sys, avhubert; avhubert.extract_features(*sys.argv[1:3], out=sys.argv[3], split='test')"


def prepared(lengths: list[int], size: str) -> Path:
    """A folder with data, model and checkpoint; another process makes it."""
    folder = scratch()
    code = (
        "import json, sys, pathlib; from fixtures import save_models, write_data; folder = pathlib.Path(sys.argv[1]);"
        "write_data(folder, json.loads(sys.argv[2])); save_models(folder, sys.argv[3])"
    )
    run([sys.executable, "-c", code, str(folder), json.dumps(lengths), size])
    return folder


def run(command: Sequence[str]) -> None:
    """Run a command; what it wrote is shown only if it fails."""
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} … failed: {done.stderr[-1000:]}")


def features(smoke: bool, size: str, baseline: bool) -> Callable[[], np.ndarray]:
    folder = prepared([10 if smoke else 75], size)
    out = folder / "out"
    out.mkdir()
    if baseline:
        checkpoint, manifest = str(folder / "checkpoint.pt"), str(folder / "test.tsv")
        command = [sys.executable, "-m", "baseline.command", "features", checkpoint, manifest, str(out)]
    else:
        command = [sys.executable, "-c", EXTRACT, str(folder), str(folder / "model"), str(out)]

    def repeat() -> np.ndarray:
        run(command)
        (path,) = out.rglob("*.npy")
        return np.load(path)

    return repeat


def decoding(smoke: bool, baseline: bool, options: Sequence[str] = ()) -> Callable[[], np.ndarray]:
    folder = prepared(LENGTHS[:2] if smoke else LENGTHS, "tiny")
    out = folder / "out"
    out.mkdir()
    if baseline:
        checkpoint, manifest = str(folder / "checkpoint.pt"), str(folder / "test.tsv")
        command = [sys.executable, "-m", "baseline.command", "decode", checkpoint, manifest, str(out)]
        command += [str(folder / "tokenizer.model"), "50"]
    else:
        command = [sys.executable, "-m", "avhubert", "evaluate", str(folder / "model"), str(folder), *options]
        command += ["--out", str(out)]

    def repeat() -> np.ndarray:
        run(command)
        return np.array([sum(text.encode()) for text in decoded(out, baseline)])

    return repeat


def decoded(out: Path, baseline: bool) -> list[str]:
    """The text of each clip, in the order of the manifest."""
    if baseline:
        texts: list[str] = json.loads((out / "texts.json").read_text(encoding="utf-8"))
        return texts
    (path,) = out.rglob("hypotheses-*.json")
    by_id = {row["id"]: row["hypothesis"] for row in json.loads(path.read_text(encoding="utf-8"))}
    return [by_id[f"clip{number}"] for number in range(len(by_id))]


def cold(size: str, goal: str, before: float) -> Case:
    forms = [
        Form("baseline", functools.partial(features, size=size, baseline=True), child=True, missing=NO_OPENCV),
        Form("ours, fp32", functools.partial(features, size=size, baseline=False), child=True),
    ]
    title = f"cold process → features of 3 s, {'Base' if size == 'base' else 'tiny'}"
    return Case(f"features-{size}", title, forms, goal, seconds=40, before=before)


CLAIM = Claim(
    "cold",
    "Whole commands",
    [
        cold("tiny", "≤ 1.3 s", 2.71),
        cold("base", "≤ 2.0 s", 4.10),
        Case(
            "decode",
            "decode 12 clips, beam 50, whole command",
            [
                Form("baseline", functools.partial(decoding, baseline=True), child=True, missing=NO_OPENCV),
                Form(
                    "ours, the same search",
                    functools.partial(
                        decoding, baseline=False, options=("--beam", "50", "--ctc-weight", "0", "--precision", "fp32")
                    ),
                    child=True,
                ),
                Form("ours, defaults", functools.partial(decoding, baseline=False), child=True),
            ],
            "≥ 3 ×",
            seconds=60,
            before=6.88,
        ),
    ],
    "Tiny is the built-in model. The published program also imports its training framework, which the baseline does "
    "not: the baseline starts faster than what it stands for.",
)
