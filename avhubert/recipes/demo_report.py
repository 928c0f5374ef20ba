"""The report page of `avhubert demo`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from avhubert.files import read_json
from avhubert.report import Page, contact_sheet
from avhubert.train.log import read_log

SPEAKERS_SHOWN = 10
CLIPS_SHOWN = 2
FRAMES_SHOWN = 20  # of a clip, every FRAME_STEP-th
FRAME_STEP = 4
SAMPLES_SHOWN = 4  # hypotheses of each condition


def write_report(out: Path, size: str, layer: int, seconds: Mapping[str, float]) -> Path:
    """Writes `out/report.html`.

    Args:
        out: Folder of a finished demo.
        size: Its size.
        layer: Layer whose features the second iteration clustered.
        seconds: Time of each stage.

    Returns:
        The path of the report.
    """
    page = Page(f"avhubert demo: the whole pipeline, size '{size}'")
    page.text(
        "A corpus of synthetic talking faces was generated, prepared like real video and clustered. A model was "
        "pre-trained without transcripts in two iterations, fine-tuned, and evaluated on speakers who are not in its "
        "training data."
    )
    _corpus_section(page, out)
    _training_section(page, out)
    _labels_section(page, out, layer)
    _results_section(page, out)
    page.heading("Time per stage")
    page.table(("stage", "seconds"), [*seconds.items(), ("total", round(sum(seconds.values()), 1))])
    page.write(out / "report.html")
    return out / "report.html"


def _corpus_section(page: Page, out: Path) -> None:
    from avhubert.data.manifest import read_manifest
    from avhubert.data.transcripts import read_transcripts
    from avhubert.data.video import read_frames, read_gray

    page.heading("The corpus")
    faces = []
    for speaker in sorted((out / "corpus").glob("*/*"))[:SPEAKERS_SHOWN]:
        frames = list(read_frames(min(speaker.glob("*.mp4"))))
        faces.append(frames[len(frames) // 2])
    page.image(contact_sheet(faces, 5), "one frame of each of up to ten speakers")
    clips = read_manifest(out / "data" / "433h" / "test.tsv")
    texts = read_transcripts(out / "data" / "433h" / "test.wrd", clips)
    page.heading("Mouth clips, the input of the model")
    for clip, text in list(zip(clips, texts, strict=True))[:CLIPS_SHOWN]:
        mouths = list(read_gray(clip.video)[::FRAME_STEP][:FRAMES_SHOWN])
        page.image(contact_sheet(mouths, 10), f"{clip.id}: {text}")


def _training_section(page: Page, out: Path) -> None:
    page.heading("Training")
    pretraining = {iteration: read_log(out / f"pretrain{iteration}") for iteration in (1, 2)}
    for metric, caption in (
        ("masked_accuracy", "accuracy of the predicted clusters, masked frames"),
        ("loss", "pre-training loss per masked frame, nats"),
    ):
        curves = {
            f"iteration {iteration}, {split}": log.series(split, metric)
            for iteration, log in pretraining.items()
            for split in ("train", "valid")
        }
        page.plot({name: series for name, series in curves.items() if series[0]}, "step", caption, caption)
    finetuning = read_log(out / "finetune")
    for metric, caption in (
        ("loss", "fine-tuning loss per sentence, nats"),
        ("accuracy", "accuracy of the next token, given the previous ones"),
    ):
        curves = {split: finetuning.series(split, metric) for split in ("train", "valid")}
        page.plot({name: series for name, series in curves.items() if series[0]}, "step", caption, caption)


def _labels_section(page: Page, out: Path, layer: int) -> None:
    page.heading("Label quality against the true phones")
    page.text(
        "At 25 Hz, on held-out clips, with the same number of clusters. PNMI: the share of the information about the "
        "phone that the cluster gives."
    )
    rows = []
    for iteration, source in ((1, "MFCC"), (2, f"layer {layer} of iteration 1")):
        quality = read_json(out / "labels" / f"iter{iteration}" / "quality.json")
        rows.append((iteration, source, *(quality[f"test_{name}"] for name in ("pnmi", "purity", "entropy"))))
    page.table(("iteration", "features", "PNMI", "phone purity", "label entropy, nats"), rows)


def _results_section(page: Page, out: Path) -> None:
    from avhubert.evaluation.metrics import Result
    from avhubert.evaluation.report import COLUMNS, result_row

    page.heading("Word error rate on unseen speakers")
    rows, samples = [], []
    for folder in sorted((out / "evaluation").iterdir()):
        summary = read_json(folder / "results.json")["results"][0]
        for derived in ("condition", "speakers"):
            summary.pop(derived, None)
        result = Result(**summary, utterances=())
        rows.append(result_row(result))
        hypotheses = read_json(next(folder.glob("hypotheses-*.json")))[:SAMPLES_SHOWN]
        samples += [(str(result.condition), row["reference"], row["hypothesis"]) for row in hypotheses]
    page.table(COLUMNS, rows)
    page.text("A random sentence of the grammar, which has six positions, would get 81 % of the words wrong.")
    page.heading("Samples")
    page.table(("condition", "reference", "hypothesis"), samples)
    page.heading("A raw video of an unseen speaker")
    result = read_json(out / "transcription.json")
    row = (Path(result["file"]).name, result["said"], result["read"], result["modality"])
    page.table(("file", "reference", "transcript", "streams"), [row])
