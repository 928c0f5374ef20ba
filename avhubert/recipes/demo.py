"""The whole pipeline on a synthetic corpus: videos → clips → clusters → pre-training (twice) → fine-tuning → text.

`_run_stages` is the recipe; each stage is one command of this package.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from avhubert.errors import ConfigError, one_of
from avhubert.files import atomic_directory, lock_directory, output_directory, read_json, write_json

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Size:
    """Size of the corpus and number of optimizer steps."""

    clips: int
    speakers: int
    clusters: int
    pretrain_steps: int
    finetune_steps: int
    overrides: tuple[str, ...] = ()
    finetune_overrides: tuple[str, ...] = ()


SIZES = {
    "smoke": Size(24, 4, 12, 6, 12),
    "quick": Size(360, 24, 50, 250, 600),
    "full": Size(1600, 48, 50, 1000, 4000),
}
LAYER = 3  # of 4, whose features the second iteration clusters; the published models use layer 9 of 12
CONDITIONS: tuple[tuple[int | None, tuple[str, ...]], ...] = ((None, ("av", "a", "v")), (0, ("av", "a")))  # SNR in dB
STAGES = 11


def run(out: str | Path, size: str = "quick", seed: int = 1) -> Path:
    """Runs every stage whose results `out` does not contain yet, and writes `out/report.html`.

    Resumes automatically after an interruption. The recognizer is `out/model`.

    Returns:
        The path of the report.

    Raises:
        ConfigError: `size` is unknown, or `out` contains a demo with another size or seed.
    """
    from avhubert.recipes.demo_report import write_report

    if size not in SIZES:
        raise ConfigError(one_of("--size", size, SIZES))
    out = output_directory(out).resolve()
    with lock_directory(out):
        stages = Stages(out, {"size": size, "seed": seed, **asdict(SIZES[size])})
        _run_stages(stages, out, SIZES[size], seed)
        report = write_report(out, size, LAYER, stages.seconds)
    _log.info("report: %s", report)
    _log.info("recognizer: %s", out / "model")
    return report


def _run_stages(stage: Stages, out: Path, size: Size, seed: int) -> None:
    from avhubert.cluster.labels import cluster
    from avhubert.config import compose
    from avhubert.corpora.noise import make_noise
    from avhubert.corpora.synthetic.writer import make_corpus
    from avhubert.prepare.pipeline import prepare
    from avhubert.train import finetune, pretrain

    data = out / "data" / "433h"

    stage("corpus", lambda: make_corpus(out / "corpus", size.clips, size.speakers, seed=seed))
    stage("preparation", lambda: prepare("lrs3", out / "corpus", out / "data", seed=seed))
    stage("babble noise", lambda: make_noise("babble", data, out / "noise", seed=seed))

    features = "mfcc"
    for iteration in (1, 2):
        labels, run_dir = out / "labels" / f"iter{iteration}", out / f"pretrain{iteration}"
        stage(f"clusters, iteration {iteration}", partial(cluster, data, features, size.clusters, labels, seed=seed))
        settings = [
            f"run_dir={run_dir}", f"data.dir={data}", f"data.labels={labels}", f"seed={seed}",
            f"train.max_steps={size.pretrain_steps}", *size.overrides,
        ]  # fmt: skip
        config = compose("pretrain", f"tiny_iter{iteration}", settings)
        stage(f"pre-training, iteration {iteration}", partial(pretrain.run, config))
        features = f"{run_dir}:{LAYER}"

    settings = [
        f"run_dir={out / 'finetune'}", f"data.dir={data}", f"model.pretrained={out / 'pretrain2'}", f"seed={seed}",
        f"data.noise={out / 'noise'}", f"train.max_steps={size.finetune_steps}", *size.finetune_overrides,
    ]  # fmt: skip
    config = compose("finetune", "tiny", settings)
    stage("fine-tuning", lambda: finetune.run(config))
    stage("model", lambda: _copy_model(out / "finetune" / "best", out / "model"))
    stage("evaluation", lambda: _evaluate(out, data))
    stage("transcription", lambda: _transcribe(out))


class Stages:
    """Runs each stage once: `demo.json` records the time of every finished stage.

    Attributes:
        seconds: Time of each finished stage.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self._path = out / "demo.json"
        self._settings = json.loads(json.dumps(settings))
        self.seconds: dict[str, float] = {}
        if self._path.exists():
            record = read_json(self._path)
            if record["settings"] != self._settings:
                raise ConfigError(
                    f"{out} contains a demo of size '{record['settings']['size']}' with other settings; "
                    "choose another --out or delete it"
                )
            self.seconds = record["seconds"]
        self._number = 0

    def __call__(self, name: str, work: Callable[[], object]) -> None:
        """Runs a stage, unless it has finished before."""
        self._number += 1
        finished = name in self.seconds
        _log.info("[%d/%d] %s%s", self._number, STAGES, name, ": done before" if finished else "")
        if finished:
            return
        start_time = time.perf_counter()
        work()
        self.seconds[name] = round(time.perf_counter() - start_time, 1)
        write_json(self._path, {"settings": self._settings, "seconds": self.seconds})


def _copy_model(source: Path, target: Path) -> None:
    with atomic_directory(target) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)


def _evaluate(out: Path, data: Path) -> None:
    from avhubert.checkpoints.load import load_recognizer
    from avhubert.evaluation.evaluate import evaluate

    recognizer = load_recognizer(out / "model")
    for snr, modalities in CONDITIONS:
        for modality in modalities:
            folder = out / "evaluation" / (modality if snr is None else f"{modality}-babble{snr}dB")
            noise = None if snr is None else out / "noise"
            evaluate(recognizer, data, modality=modality, noise=noise, snrs=[snr], out=folder)


def _transcribe(out: Path) -> None:
    """Transcribes one raw video of the test speakers."""
    from avhubert.transcription.pipeline import transcribe

    video = sorted((out / "corpus" / "test").rglob("*.mp4"))[0]
    transcript = transcribe(video, str(out / "model"))
    reference = video.with_suffix(".txt").read_text(encoding="utf-8").splitlines()[0].removeprefix("Text:").strip()
    result = {
        "file": str(video),
        "said": reference.lower(),
        "read": transcript.text,
        "modality": transcript.modality,
        "warnings": transcript.warnings,
    }
    write_json(out / "transcription.json", result)
    _log.info(
        "%s: reference '%s', transcript '%s' from %s", video.name, reference.lower(), transcript.text,
        transcript.modality,
    )  # fmt: skip
