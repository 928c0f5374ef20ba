"""Argument types and options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avhubert.config import command_defaults as defaults
from avhubert.constants import MODALITIES
from avhubert.errors import ConfigError

if TYPE_CHECKING:
    from avhubert.data.media import StreamChoice

MODALITY_CHOICES = tuple(MODALITIES)


# --------------------------------------------------------------------------- types
def parse_shard(text: str) -> tuple[int, int]:
    """'I/N' as (I, N) with 0 ≤ I < N; ConfigError for anything else."""
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError:
        index, count = 0, 0
    if not 0 <= index < count:
        raise ConfigError(f"--shard {text} is not of the form I/N with 0 ≤ I < N, such as 0/4")
    return index, count


def snr(text: str) -> int | str:
    """A signal-to-noise ratio in dB, or 'clean'."""
    return text if text == "clean" else int(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share between 0 and 1")
    return value


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return value


def position(text: str) -> int:
    """A whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 0")
    return value


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def seconds(text: str) -> float:
    """A finite number of seconds above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


# --------------------------------------------------------------------------- options
def add_seed(parser: argparse.ArgumentParser, default: int = 0) -> None:
    """--seed."""
    parser.add_argument("--seed", type=int, default=default, metavar="K", help=f"random seed (default {default})")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """--workers."""
    parser.add_argument("--workers", type=positive, metavar="N", help="number of processes (default: one per core)")


def add_modality(parser: argparse.ArgumentParser) -> None:
    """--modality, one of the trained ones."""
    parser.add_argument("--modality", choices=MODALITY_CHOICES, default="av", help="streams to use (default av)")


def add_recognizer(parser: argparse.ArgumentParser) -> None:
    """--model of the commands that transcribe recordings."""
    parser.add_argument(
        "--model",
        default=defaults.BUILTIN_MODEL,
        metavar="MODEL",
        help="model directory or checkpoint (default: builtin)",
    )


def add_recognized_modality(parser: argparse.ArgumentParser) -> None:
    """--modality of the commands that transcribe recordings."""
    parser.add_argument(
        "--modality",
        choices=("auto", *MODALITY_CHOICES),
        default="auto",
        metavar="M",
        help="auto (default: streams good enough), av, a or v",
    )


def add_compute(parser: argparse.ArgumentParser) -> None:
    """--device and --precision, for `avhubert.devices.resolve`."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="D",
        help="cpu, cuda, cuda:N, mps, or auto (default): a GPU if there is one",
    )
    parser.add_argument(
        "--precision",
        default="auto",
        metavar="P",
        help="fp32, bf16, fp16, or auto (default): bf16 on a GPU that supports it, else fp32",
    )


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """--beam, --ctc-weight, --lm, --lm-weight: settings in place of the model's."""
    parser.add_argument("--beam", type=positive, metavar="N", help="beam size; default here and below: the model's")
    parser.add_argument("--ctc-weight", type=share, metavar="W", help="weight of CTC in the score, 0 to 1")
    parser.add_argument("--lm", metavar="LM", help="a file of `avhubert lm`, or a Hugging Face model")
    parser.add_argument("--lm-weight", type=float, metavar="W", help="weight of the language model")


def add_streams(parser: argparse.ArgumentParser) -> None:
    """--audio-stream and --video-stream."""
    parser.add_argument("--audio-stream", type=position, metavar="N", help="audio stream of the file, from 0")
    parser.add_argument("--video-stream", type=position, metavar="N", help="video stream (default: chosen)")


def stream_choice(options: argparse.Namespace) -> StreamChoice:
    """The streams that were chosen."""
    from avhubert.data.media import StreamChoice

    return StreamChoice(options.audio_stream, options.video_stream)


def add_vad(parser: argparse.ArgumentParser) -> None:
    """--vad."""
    parser.add_argument(
        "--vad",
        choices=("auto", "off"),
        default="auto",
        help="skip audio without speech (auto, default) or read it",
    )


def decoding_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The decoding settings that were given, by their keys in `decode`."""
    names = ("beam", "lenpen", "ctc_weight", "lm", "lm_weight", "nbest")
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def add_preset(parser: argparse.ArgumentParser, name: str, directory: str, overrides: str) -> None:
    """--config-name, --config-dir and key=value overrides, with these help texts."""
    parser.add_argument("--config-name", required=True, metavar="NAME", help=name)
    parser.add_argument("--config-dir", type=Path, metavar="D", help=directory)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=overrides)
