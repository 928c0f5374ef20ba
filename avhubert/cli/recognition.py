"""Commands that use a recognizer: `evaluate`, `compare`, `transcribe`, `serve`, `lm`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from avhubert.cli.arguments import (
    MODALITY_CHOICES,
    above_zero,
    add_compute,
    add_decoding,
    add_recognized_modality,
    add_recognizer,
    add_streams,
    add_vad,
    decoding_settings,
    positive,
    seconds,
    snr,
    stream_choice,
)
from avhubert.cli.output import show, show_values, warn
from avhubert.cli.parser import Command
from avhubert.config import command_defaults as defaults
from avhubert.errors import ConfigError
from avhubert.serve.limits import MAX_QUEUE, MAX_RECORDING_SECONDS, MAX_UPLOAD_MB, RESPONSE_TIMEOUT


# --------------------------------------------------------------------------- evaluate, compare
def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model directory, published checkpoint or builtin")
    parser.add_argument("data", type=Path, metavar="DATA", help="data directory")
    parser.add_argument("--split", default="test", help="split of DATA (default test)")
    parser.add_argument(
        "--modality",
        choices=MODALITY_CHOICES,
        action="append",
        help="streams (default av); repeatable, as the next three",
    )
    parser.add_argument(
        "--noise",
        action="append",
        default=[],
        metavar="[NAME=]LIST",
        help="noise list, or a folder written by `avhubert noise`",
    )
    parser.add_argument("--snr", type=snr, action="append", metavar="dB", help="signal-to-noise ratio, or `clean`")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="F",
        help="blur, freeze, occlusion, drop or offset:N of the video",
    )
    add_decoding(parser)
    parser.add_argument("--lenpen", type=float, metavar="X", help="length penalty")
    parser.add_argument("--nbest", type=positive, metavar="N", help="hypotheses written per clip (default 1)")
    parser.add_argument(
        "--normalise",
        choices=("basic", "plain", "english"),
        default=defaults.NORMALISER,
        help="of both texts: basic (lower case; default), plain (also no punctuation), english (Whisper's)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for hypotheses, results.json and report.html")
    add_compute(parser)


def _evaluate(options: argparse.Namespace) -> None:
    from avhubert.evaluation.evaluate import evaluate

    if options.snr and not options.noise:
        raise ConfigError("--snr needs --noise: a noise list or the folder that `avhubert noise` wrote")
    if options.noise and not options.snr:
        raise ConfigError("--noise needs at least one --snr, in dB, such as --snr 0")
    evaluate(
        options.model,
        options.data,
        split=options.split,
        modality=options.modality or "av",
        noise=_noise_lists(options.noise),
        snrs=[None if ratio == "clean" else ratio for ratio in options.snr or ["clean"]],
        faults=options.fault,
        out=options.out,
        normalise=options.normalise,
        decode=decoding_settings(options),
        device=options.device,
        precision=options.precision,
    )


def _noise_lists(values: list[str]) -> dict[str, str] | str | None:
    """The values of --noise: lists by name, one list without a name, or None."""
    pairs = [(name, path) if equals else ("", name) for name, equals, path in (text.partition("=") for text in values)]
    if len(pairs) > 1 and not all(name and path for name, path in pairs):
        raise ConfigError("several --noise need a name each, as in --noise babble=noise --noise music=music.tsv")
    if not pairs:
        return None
    return dict(pairs) if pairs[0][0] else pairs[0][1]


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="A.json", help="a hypotheses-….json of `avhubert evaluate`")
    parser.add_argument("second", type=Path, metavar="B.json", help="another one, of the same clips")


def _compare(options: argparse.Namespace) -> None:
    from avhubert.evaluation.comparison import compare
    from avhubert.evaluation.results import read_hypotheses

    result = compare(read_hypotheses(options.first), read_hypotheses(options.second))
    low, high = result.interval
    show(f"first   WER {result.first:.1f} %")
    show(f"second  WER {result.second:.1f} %")
    interval = f"{result.difference:+.1f} [{low:+.1f}, {high:+.1f}]"
    show(f"second − first: {interval}, p = {result.p:.3f}, {result.utterances} clips")


# --------------------------------------------------------------------------- transcribe, serve
def _transcribe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="file, folder or pattern such as 'talks/*.mp4'")
    add_recognizer(parser)
    parser.add_argument("--sample", action="store_true", help="transcribe the clip inside the package")
    add_recognized_modality(parser)
    parser.add_argument(
        "--format", choices=("txt", "srt", "vtt", "json"), default="txt", help="output format (default txt)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write one file per FILE there instead of printing")
    parser.add_argument("--burn-in", action="store_true", help="also write the video with captions and mouth boxes")
    parser.add_argument("--skip-existing", action="store_true", help="skip files whose transcript is already in DIR")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="also replace files that transcribe did not write",
    )
    parser.add_argument("--people", action="store_true", help="one transcript for each visible person, by lip reading")
    add_streams(parser)
    add_vad(parser)
    add_decoding(parser)
    add_compute(parser)


def _transcribe(options: argparse.Namespace) -> None:
    from avhubert.checkpoints.builtin import SAMPLE, sample_text
    from avhubert.cli.transcripts import transcribe
    from avhubert.transcription.batch import BatchOptions

    if not options.files and not options.sample:
        raise ConfigError("nothing to transcribe: give a FILE, or --sample for the clip inside the package")
    if options.out is None and (options.burn_in or options.skip_existing or options.overwrite):
        raise ConfigError("--burn-in, --skip-existing and --overwrite need --out, the output folder")
    if options.skip_existing and options.overwrite:
        raise ConfigError("--skip-existing keeps the files that --overwrite replaces; choose one of them")
    if options.people:
        if options.burn_in:
            raise ConfigError("--burn-in shows the captions of one person; it cannot be combined with --people")
        if options.out is None and options.format != "txt":
            raise ConfigError(f"--people writes one {options.format} file for each person; give --out, their folder")
    if options.sample:
        warn(f"the sample says: {sample_text()}")
    transcribe(
        [*options.files, *([SAMPLE] if options.sample else [])],
        options.model,
        BatchOptions(
            modality=options.modality,
            form=options.format,
            out=options.out,
            burn_in=options.burn_in,
            skip_existing=options.skip_existing,
            overwrite=options.overwrite,
            people=options.people,
            device=options.device,
            precision=options.precision,
            decode=decoding_settings(options),
            streams=stream_choice(options),
            vad=options.vad,
        ),
    )


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    add_recognizer(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="address to listen on (default 127.0.0.1: this machine only)"
    )
    parser.add_argument("--port", type=int, default=8000, metavar="P", help="port (default 8000; 0: any free port)")
    parser.add_argument(
        "--token",
        default=os.environ.get("AVHUBERT_TOKEN") or None,
        metavar="T",
        help="token that every client must send (default: $AVHUBERT_TOKEN, else none)",
    )
    parser.add_argument(
        "--max-mb",
        type=above_zero,
        default=MAX_UPLOAD_MB,
        metavar="N",
        help=f"largest upload in MB (default {MAX_UPLOAD_MB:g})",
    )
    parser.add_argument(
        "--max-seconds",
        type=seconds,
        default=MAX_RECORDING_SECONDS,
        metavar="S",
        help=f"longest recording (default {MAX_RECORDING_SECONDS:g})",
    )
    parser.add_argument(
        "--queue",
        type=positive,
        default=MAX_QUEUE,
        metavar="N",
        help=f"largest number of waiting requests (default {MAX_QUEUE})",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=RESPONSE_TIMEOUT,
        metavar="S",
        help=f"longest time to a response (default {RESPONSE_TIMEOUT:g})",
    )
    add_vad(parser)
    add_decoding(parser)
    add_compute(parser)


def _serve(options: argparse.Namespace) -> None:
    try:
        from avhubert.serve.limits import Limits
        from avhubert.serve.server import serve
        from avhubert.serve.service import ModelOptions
    except ImportError as error:
        raise ConfigError(f"`avhubert serve` needs {error.name}: pip install 'avhubert[serve]'") from error
    limits = Limits(options.max_mb, options.max_seconds, options.queue, options.timeout)
    model_options = ModelOptions(options.device, options.precision, decoding_settings(options), options.vad)
    serve(options.model, options.host, options.port, options.token, limits, model_options)


# --------------------------------------------------------------------------- lm
def _lm_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA", help="data directory")
    parser.add_argument("out", type=Path, metavar="OUT", help="ARPA file to write, for --lm and decode.lm")
    parser.add_argument(
        "--order",
        type=positive,
        default=defaults.NGRAM_ORDER,
        metavar="N",
        help=f"longest n-gram (default {defaults.NGRAM_ORDER})",
    )


def _lm(options: argparse.Namespace) -> None:
    from avhubert.decode.lm.train_ngram import train_ngram

    show_values(train_ngram(options.data, options.out, order=options.order).values())


COMMANDS = (
    Command(
        "evaluate",
        "measure the word error rate of a recognizer, clean or with noise",
        "avhubert evaluate runs/demo/model data/30h --modality v --out eval",
        _evaluate_arguments,
        _evaluate,
    ),
    Command(
        "compare",
        "test whether two results on the same clips differ: paired bootstrap over utterances",
        "avhubert compare eval1/hypotheses-v-clean.json eval2/hypotheses-v-clean.json",
        _compare_arguments,
        _compare,
    ),
    Command(
        "transcribe",
        "transcribe video or audio files of any length and format",
        "avhubert transcribe talk.mp4 --format srt",
        _transcribe_arguments,
        _transcribe,
    ),
    Command(
        "serve",
        "serve a web page and an HTTP API that transcribe uploaded files",
        "avhubert serve --port 8000",
        _serve_arguments,
        _serve,
    ),
    Command(
        "lm",
        "train an n-gram language model of tokenizer symbols on the training transcripts of a data directory",
        "avhubert lm data/433h lm.arpa --order 4",
        _lm_arguments,
        _lm,
    ),
)
