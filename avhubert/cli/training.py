"""Commands that train: `cluster`, `pretrain`, `finetune`, `iterate`, `pseudo-label`, `average`."""

from __future__ import annotations

import argparse
from pathlib import Path

from avhubert.cli.arguments import add_compute, add_modality, add_preset, add_seed, positive
from avhubert.cli.output import show, show_values, warn
from avhubert.cli.parser import Command
from avhubert.config import command_defaults as defaults


def _cluster_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA", help="data directory")
    parser.add_argument(
        "--features", required=True, metavar="mfcc|MODEL:LAYER", help="features to cluster: MFCC, or a model's layer"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--clusters", type=positive, metavar="K", help="learn K clusters")
    source.add_argument(
        "--like", type=Path, metavar="LABELS", help="use the clusters of this label folder, without learning"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="LABELS", help="folder for {split}.km and labels.json"
    )
    add_seed(parser)
    parser.add_argument(
        "--percent",
        type=float,
        default=100.0,
        metavar="P",
        help="percentage of the training clips that k-means uses (default 100)",
    )
    add_compute(parser)


def _cluster(options: argparse.Namespace) -> None:
    from avhubert.cluster.labels import apply, cluster

    if options.like is not None:
        quality = apply(
            options.data,
            options.features,
            options.like,
            options.out,
            device=options.device,
            precision=options.precision,
        )
    else:
        quality = cluster(
            options.data,
            options.features,
            options.clusters,
            options.out,
            seed=options.seed,
            percent=options.percent,
            device=options.device,
            precision=options.precision,
        )
    show_values(quality)
    show(f"labels in {options.out}; open {Path(options.out) / 'report.html'}")


def _training_arguments(parser: argparse.ArgumentParser) -> None:
    add_preset(
        parser,
        name="preset",
        directory="folder of your own presets, or of the published project's configurations",
        overrides="values of any keys of the preset",
    )


def _pretrain(options: argparse.Namespace) -> None:
    from avhubert.checkpoints.fairseq.presets import compose_any
    from avhubert.train.pretrain import run

    run(compose_any("pretrain", options.config_name, options.overrides, options.config_dir, warn))


def _finetune(options: argparse.Namespace) -> None:
    from avhubert.checkpoints.fairseq.presets import compose_any
    from avhubert.train.finetune import run

    run(compose_any("finetune", options.config_name, options.overrides, options.config_dir, warn))


def _iterate_arguments(parser: argparse.ArgumentParser) -> None:
    add_preset(
        parser,
        name="recipe",
        directory="folder of your own recipes",
        overrides="values of any keys of the recipe, or of the preset of every iteration",
    )
    parser.add_argument(
        "--from-iteration", type=positive, default=1, metavar="N", help="keep the iterations before N as they are"
    )


def _iterate(options: argparse.Namespace) -> None:
    from avhubert.recipes.iterate import run

    directory = run(options.config_name, options.overrides, options.config_dir, options.from_iteration)
    show(f"open {directory / 'report.html'}")


def _pseudo_label_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="recognizer")
    parser.add_argument("data", type=Path, metavar="DATA", help="data directory; transcripts are not needed")
    parser.add_argument("out", type=Path, metavar="OUT", help="data directory to write, for fine-tuning")
    parser.add_argument(
        "--min-confidence",
        type=float,
        required=True,
        metavar="X",
        help="keep clips whose mean token log-probability is at least X",
    )
    parser.add_argument(
        "--labelled",
        type=Path,
        metavar="DATA",
        help="data directory with transcripts to add; it also gives validation clips and tokenizer",
    )
    parser.add_argument("--split", default="train", help="split of DATA (default train)")
    add_modality(parser)
    parser.add_argument("--beam", type=positive, metavar="N", help="beam size (default: the model's)")
    parser.add_argument(
        "--max-frames",
        type=positive,
        default=defaults.MAX_PSEUDO_LABEL_FRAMES,
        metavar="T",
        help=f"skip longer clips, in frames (default {defaults.MAX_PSEUDO_LABEL_FRAMES})",
    )
    add_compute(parser)


def _pseudo_label(options: argparse.Namespace) -> None:
    from avhubert.evaluation.pseudo_label import pseudo_label

    summary = pseudo_label(
        options.model,
        options.data,
        options.out,
        options.min_confidence,
        labelled=options.labelled,
        split=options.split,
        modality=options.modality,
        beam=options.beam,
        max_frames=options.max_frames,
        device=options.device,
        precision=options.precision,
    )
    show(summary)


def _average_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run_dir of pretrain or finetune")
    parser.add_argument("out", type=Path, metavar="OUT", help="model directory to write")
    parser.add_argument("--last", type=positive, metavar="N", help="number of states (default: all saved ones)")


def _average(options: argparse.Namespace) -> None:
    from avhubert.train.average import average

    steps = average(options.run_dir, options.out, options.last)
    show(f"{options.out}: the mean of {len(steps)} states, of the steps {', '.join(map(str, steps))}")


def _training_example(command: str, preset: str, override: str) -> str:
    return f"avhubert {command} --config-name {preset} run_dir=runs/x data.dir=data/433h {override} train.max_steps=100"


COMMANDS = (
    Command(
        "cluster",
        "cluster features into frame labels for pre-training",
        "avhubert cluster data/433h --features mfcc --clusters 100 --out labels/iter1",
        _cluster_arguments,
        _cluster,
    ),
    Command(
        "pretrain",
        "pre-train a model by masked cluster prediction; resumes automatically in the same run_dir",
        _training_example("pretrain", "tiny_iter1", "data.labels=labels/iter1"),
        _training_arguments,
        _pretrain,
    ),
    Command(
        "finetune",
        "train a recognizer from a pre-trained model; resumes automatically in the same run_dir",
        _training_example("finetune", "tiny", "model.pretrained=runs/iter2"),
        _training_arguments,
        _finetune,
    ),
    Command(
        "iterate",
        "cluster and pre-train for all iterations of a recipe; resumes automatically in the same run_dir",
        "avhubert iterate --config-name base_lrs3 run_dir=runs/lrs3 data.dir=data/433h",
        _iterate_arguments,
        _iterate,
    ),
    Command(
        "pseudo-label",
        "self-training: transcribe clips without transcripts and add the confident ones to labelled data",
        "avhubert pseudo-label runs/tuned data/vox/en data/mixed --labelled data/433h --min-confidence -0.2",
        _pseudo_label_arguments,
        _pseudo_label,
    ),
    Command(
        "average",
        "average the weights of the last saved states of a run",
        "avhubert average runs/tuned runs/tuned-mean --last 5",
        _average_arguments,
        _average,
    ),
)
