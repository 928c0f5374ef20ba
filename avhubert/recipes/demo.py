"""The whole loop in one command, on a corpus made here: videos → clips → labels → model → labels → model → text.

Read `run` from top to bottom: it is the recipe that anyone can repeat with the commands named in it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from avhubert.errors import ConfigError, one_of
from avhubert.files import atomic_directory, lock_directory, output_directory, read_json, write_json
from avhubert.report import Page, contact_sheet


@dataclass(frozen=True)
class Size:
    """How much of everything; steps are optimizer steps of the presets' frames each."""

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


LAYER = 3  # whose features the second iteration clusters, of 4: the published 9 of 12


CONDITIONS: tuple[tuple[int | None, tuple[str, ...]], ...] = ((None, ("av", "a", "v")), (0, ("av", "a")))


def run(out: str | Path, size: str = "quick", seed: int = 1) -> Path:
    """Run every stage that `out` doesn't hold yet and write `out/report.html`; the recognizer is `out/model`.

    A killed run goes on where it was. Returns the path of the report.

    Raises:
        ConfigError: an unknown size, or `out` holds a demo of another size or seed.
    """
    if size not in SIZES:
        raise ConfigError(one_of("--size", size, SIZES))
    amount = SIZES[size]
    out = output_directory(out).resolve()
    with lock_directory(out):
        stages = Stages(out, {"size": size, "seed": seed, **asdict(amount)})
        _run_stages(stages, out, amount, seed)
        report = _report(out, size, stages)
    print(f"report: {report}\nrecognizer: {out / 'model'}")
    return report


def _run_stages(stage: Stages, out: Path, amount: Size, seed: int) -> None:
    from avhubert.cluster.labels import cluster
    from avhubert.config import compose
    from avhubert.corpora.noise import make_noise
    from avhubert.corpora.synthetic.writer import make_corpus
    from avhubert.prepare.pipeline import prepare
    from avhubert.train import finetune, pretrain

    data = out / "data" / "433h"

    stage("corpus", lambda: make_corpus(out / "corpus", amount.clips, amount.speakers, seed=seed))
    stage("preparation", lambda: prepare("lrs3", out / "corpus", out / "data", seed=seed))
    stage("babble noise", lambda: make_noise("babble", data, out / "noise", seed=seed))

    teacher = "mfcc"
    for iteration in (1, 2):
        labels, pretrained = out / "labels" / f"iter{iteration}", out / f"pretrain{iteration}"
        stage(f"clusters, iteration {iteration}", partial(cluster, data, teacher, amount.clusters, labels, seed=seed))
        settings = [
            f"run_dir={pretrained}", f"data.dir={data}", f"data.labels={labels}", f"seed={seed}",
            f"train.max_steps={amount.pretrain_steps}", *amount.overrides,
        ]  # fmt: skip
        preset = compose("pretrain", f"tiny_iter{iteration}", settings)
        stage(f"pre-training, iteration {iteration}", partial(pretrain.run, preset))
        teacher = f"{pretrained}:{LAYER}"

    settings = [
        f"run_dir={out / 'finetune'}", f"data.dir={data}", f"model.pretrained={out / 'pretrain2'}", f"seed={seed}",
        f"data.noise={out / 'noise'}", f"train.max_steps={amount.finetune_steps}", *amount.finetune_overrides,
    ]  # fmt: skip
    preset = compose("finetune", "tiny", settings)
    stage("fine-tuning", lambda: finetune.run(preset))
    stage("model", lambda: _copy_model(out / "finetune" / "best", out / "model"))
    stage("evaluation", lambda: _evaluate(out, data))
    stage("transcription", lambda: _transcribe(out))


class Stages:
    """Runs a stage once: its time is kept in `demo.json`, and a stage that has one is done."""

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self._path = out / "demo.json"
        self._settings = json.loads(json.dumps(settings))
        self.seconds: dict[str, float] = {}
        if self._path.exists():
            kept = read_json(self._path)
            if kept["settings"] != self._settings:
                raise ConfigError(
                    f"{out} holds a demo of size '{kept['settings']['size']}' with other settings; "
                    "choose another --out or delete it"
                )
            self.seconds = kept["seconds"]
        self._total = 11
        self._number = 0

    def __call__(self, name: str, work: Callable[[], object]) -> None:
        self._number += 1
        if name in self.seconds:
            print(f"[{self._number}/{self._total}] {name}: done before")
            return
        print(f"[{self._number}/{self._total}] {name}", flush=True)
        started = time.perf_counter()
        work()
        self.seconds[name] = round(time.perf_counter() - started, 1)
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
    from avhubert.transcription.pipeline import transcribe

    video = sorted((out / "corpus" / "test").rglob("*.mp4"))[0]
    transcript = transcribe(video, str(out / "model"))
    said = video.with_suffix(".txt").read_text(encoding="utf-8").splitlines()[0].removeprefix("Text:").strip()
    kept = {"file": str(video), "said": said.lower(), "read": transcript.text, "modality": transcript.modality}
    write_json(out / "transcription.json", {**kept, "warnings": transcript.warnings})
    print(f"{video.name}: said '{kept['said']}', read '{kept['read']}' from {transcript.modality}")


# --------------------------------------------------------------------------- the report
def _report(out: Path, size: str, stages: Stages) -> Path:
    page = Page(f"avhubert demo: the whole loop, size '{size}'")
    page.text(
        "Talking faces were drawn and given a voice, prepared as real video would be, clustered, learned from "
        "without labels in two iterations, fine-tuned to text, and read on speakers never seen in training."
    )
    _corpus_section(page, out)
    _training_section(page, out)
    _labels_section(page, out)
    _results_section(page, out)
    page.heading("Time per stage")
    page.table(("stage", "seconds"), [*stages.seconds.items(), ("total", round(sum(stages.seconds.values()), 1))])
    page.write(out / "report.html")
    return out / "report.html"


def _corpus_section(page: Page, out: Path) -> None:
    from avhubert.data.manifest import read_manifest
    from avhubert.data.transcripts import read_transcripts
    from avhubert.data.video import read_frames, read_gray

    page.heading("The corpus")
    faces = []
    for speaker in sorted((out / "corpus").glob("*/*"))[:10]:
        video = sorted(speaker.glob("*.mp4"))[0]
        shown = list(read_frames(video))
        faces.append(shown[len(shown) // 2])
    page.image(contact_sheet(faces, 5), "one frame of each of up to ten speakers")
    clips = read_manifest(out / "data" / "433h" / "test.tsv")
    texts = read_transcripts(out / "data" / "433h" / "test.wrd", clips)
    page.heading("Mouth clips, as the model sees them")
    for clip, text in list(zip(clips, texts, strict=True))[:2]:
        frames = read_gray(clip.video)
        page.image(contact_sheet(list(frames[::4][:20]), 10), f"{clip.id}: {text}")


def _metrics(run_dir: Path, split: str, figure: str) -> tuple[list[float], list[float]]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    chosen = [(row["step"], row[figure]) for row in rows if row["split"] == split and figure in row]
    return [step for step, _ in chosen], [value for _, value in chosen]


def _training_section(page: Page, out: Path) -> None:
    page.heading("Learning")
    for name, figure, what in (
        ("pretrain", "masked_accuracy", "share of masked frames whose cluster is guessed"),
        ("pretrain", "loss", "pre-training loss per masked frame, nats"),
    ):
        runs = {
            f"iteration {iteration}, {split}": _metrics(out / f"{name}{iteration}", split, figure)
            for iteration in (1, 2)
            for split in ("train", "valid")
        }
        page.plot({key: xy for key, xy in runs.items() if xy[0]}, "step", what, what)
    for figure, what in (
        ("loss", "fine-tuning loss per sentence, nats"),
        ("accuracy", "share of tokens right, given the ones before"),
    ):
        runs = {split: _metrics(out / "finetune", split, figure) for split in ("train", "valid")}
        page.plot({key: xy for key, xy in runs.items() if xy[0]}, "step", what, what)


def _labels_section(page: Page, out: Path) -> None:
    page.heading("Label quality against the true phones")
    page.text("At 25 Hz, on held-out clips, with equally many clusters. PNMI: share of the phones' information kept.")
    rows = []
    for iteration, source in ((1, "MFCC"), (2, f"layer {LAYER} of iteration 1")):
        quality = read_json(out / "labels" / f"iter{iteration}" / "quality.json")
        rows.append((iteration, source, *(quality[f"test_{name}"] for name in ("pnmi", "purity", "entropy"))))
    page.table(("iteration", "features", "PNMI", "phone purity", "label entropy, nats"), rows)


def _results_section(page: Page, out: Path) -> None:
    from avhubert.evaluation.metrics import Result
    from avhubert.evaluation.report import COLUMNS, result_row

    page.heading("Word error rate on unseen speakers")
    rows, samples = [], []
    for folder in sorted((out / "evaluation").iterdir()):
        kept = read_json(folder / "results.json")["results"][0]
        del kept["condition"]
        result = Result(**kept, utterances=())
        rows.append(result_row(result))
        hypotheses = read_json(next(folder.glob("hypotheses-*.json")))
        samples += [(str(result.condition), row["reference"], row["hypothesis"]) for row in hypotheses[:4]]
    page.table(COLUMNS, rows)
    page.text("Guessing inside the grid's six slots would get 81 % wrong.")
    page.heading("Samples")
    page.table(("condition", "said", "read"), samples)
    page.heading("A raw video, never seen")
    kept = read_json(out / "transcription.json")
    row = (Path(kept["file"]).name, kept["said"], kept["read"], kept["modality"])
    page.table(("file", "said", "read", "from"), [row])
