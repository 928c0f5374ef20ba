"""Commands that make training data: `synth`, `prepare`, `shards`, `noise`."""

from __future__ import annotations

import argparse
from pathlib import Path

from avhubert.cli.arguments import (
    MODALITY_CHOICES,
    add_seed,
    add_streams,
    add_workers,
    parse_shard,
    positive,
    seconds,
    share,
    stream_choice,
)
from avhubert.cli.output import show
from avhubert.cli.parser import Command
from avhubert.config import command_defaults as defaults
from avhubert.config.input_preparation import CROPS, MEAN_FACE


def _synth_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="output folder")
    parser.add_argument("--clips", type=positive, required=True, metavar="N", help="total number of clips")
    parser.add_argument(
        "--speakers",
        type=positive,
        default=defaults.SPEAKERS,
        metavar="S",
        help=f"number of speakers (default {defaults.SPEAKERS})",
    )
    add_seed(parser)
    parser.add_argument(
        "--text",
        default="grid",
        metavar="KIND",
        help="grid: six-word commands, 51 words (default); sentences: over 1000 words",
    )
    parser.add_argument("--language", default="en", metavar="L", help="en (default) or ru (grid only)")
    parser.add_argument(
        "--extra",
        nargs="+",
        default=[],
        metavar="X",
        help="any of: glasses, beard, light (moving), hands, faces (a silent second person), skin, lens (as real ones)",
    )
    add_workers(parser)


def _synth(options: argparse.Namespace) -> None:
    from avhubert.corpora.synthetic.writer import make_corpus

    summary = make_corpus(
        options.dir,
        options.clips,
        options.speakers,
        seed=options.seed,
        text=options.text,
        workers=options.workers,
        language=options.language,
        extra=options.extra,
    )
    show(summary)


def _add_choice_of_clips(parser: argparse.ArgumentParser) -> None:
    """Options of single corpora: who speaks, and which clips are for what."""
    parser.add_argument(
        "--split",
        metavar="RULE",
        help="grid: unseen (default), overlap, speaker:S; folder: speakers (no speaker in two splits)",
    )
    parser.add_argument(
        "--speakers",
        metavar="FILE",
        help="folder: who speaks (SRC/speakers.tsv), or 'folders'",
    )
    parser.add_argument("--valid-list", type=Path, metavar="FILE", help="lrs3: ids of the validation clips, one a line")
    parser.add_argument("--english-ids", type=Path, metavar="FILE", help="vox2: ids of the English clips, one a line")


def _add_mouth(parser: argparse.ArgumentParser) -> None:
    """Options of the mouth clips."""
    parser.add_argument(
        "--landmarks",
        metavar="DIR",
        help="68 landmarks per frame in DIR/ID.pkl or .npz, or dlib:DIR (dlib's model files)",
    )
    parser.add_argument(
        "--crop",
        default=MEAN_FACE,
        metavar="CROP",
        help=f"{' or '.join(CROPS)}; or a model: what it reads",
    )


def _prepare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", choices=("lrs3", "vox2", "grid", "folder"), help="layout of SRC")
    parser.add_argument("src", type=Path, metavar="SRC", help="the corpus, or any folder of videos")
    parser.add_argument("dst", type=Path, metavar="DST", help="output folder; data directories are in it, or below it")
    add_workers(parser)
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="process part I of N (for job arrays)")
    parser.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        metavar="E",
        help="local (default) or ray (a Ray cluster)",
    )
    add_seed(parser)
    parser.add_argument(
        "--vocab-size",
        type=positive,
        default=defaults.VOCAB_SIZE,
        metavar="V",
        help=f"tokenizer size (default {defaults.VOCAB_SIZE})",
    )
    parser.add_argument(
        "--max-rejected",
        type=share,
        default=defaults.MAX_REJECTED,
        metavar="SHARE",
        help=f"highest share of unusable inputs, 0 to 1 (default {defaults.MAX_REJECTED})",
    )
    parser.add_argument(
        "--max-seconds",
        type=seconds,
        default=defaults.MAX_CLIP_SECONDS,
        metavar="S",
        help=f"reject longer clips (default {defaults.MAX_CLIP_SECONDS:g})",
    )
    parser.add_argument(
        "--streams",
        choices=(*MODALITY_CHOICES, "any"),
        default="av",
        metavar="S",
        help="av (default), a, v; any: those that a recording has",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=defaults.STALL_SECONDS,
        metavar="S",
        help=f"reject a clip that stalls for S seconds (default {defaults.STALL_SECONDS:g})",
    )
    _add_choice_of_clips(parser)
    _add_mouth(parser)
    add_streams(parser)


def _crop_of(model: str) -> str:
    from avhubert.checkpoints.load import read_preparation

    return read_preparation(model).crop


def _prepare(options: argparse.Namespace) -> None:
    from avhubert.prepare.pipeline import prepare

    summary = prepare(
        options.corpus,
        options.src,
        options.dst,
        workers=options.workers,
        shard=parse_shard(options.shard),
        seed=options.seed,
        vocab_size=options.vocab_size,
        max_rejected=options.max_rejected,
        max_seconds=options.max_seconds,
        valid_list=options.valid_list,
        english_ids=options.english_ids,
        landmarks=options.landmarks,
        executor=options.executor,
        streams=stream_choice(options),
        stall_seconds=options.timeout,
        modality=options.streams,
        split=options.split,
        speakers=options.speakers,
        crop=options.crop if options.crop in CROPS else _crop_of(options.crop),
    )
    show(summary)


def _shards_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA", help="data directory")
    parser.add_argument("out", type=Path, metavar="OUT", help="data directory of shards to write")
    parser.add_argument(
        "--shard-mb",
        type=positive,
        default=defaults.SHARD_MB,
        metavar="N",
        help=f"size of a shard in MB (default {defaults.SHARD_MB})",
    )


def _shards(options: argparse.Namespace) -> None:
    from avhubert.data.shards import make_shards

    show(make_shards(options.data, options.out, options.shard_mb))


def _noise_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("musan", "babble", "speech"), help="kind of noise")
    parser.add_argument("src", type=Path, metavar="SRC", help="musan: the MUSAN corpus; else a data directory")
    parser.add_argument("dst", type=Path, metavar="DST", help="output folder")
    add_seed(parser)


def _noise(options: argparse.Namespace) -> None:
    from avhubert.corpora.noise import make_noise

    show(make_noise(options.kind, options.src, options.dst, seed=options.seed))


COMMANDS = (
    Command(
        "synth",
        "generate a synthetic talking-face corpus in the folder layout of LRS3",
        "avhubert synth corpus --clips 40 --speakers 8 --seed 7",
        _synth_arguments,
        _synth,
    ),
    Command(
        "prepare",
        "convert a corpus of videos to mouth clips, manifests, transcripts and a tokenizer",
        "avhubert prepare lrs3 /corpora/lrs3 data --workers 8",
        _prepare_arguments,
        _prepare,
    ),
    Command(
        "shards",
        "pack a data directory into a few large tar files, for training on a cluster",
        "avhubert shards data/433h /lustre/433h --shard-mb 1000",
        _shards_arguments,
        _shards,
    ),
    Command(
        "noise",
        "make noise clips and their train, valid and test lists",
        "avhubert noise babble data/433h noise",
        _noise_arguments,
        _noise,
    ),
)
