"""Commands about models and the installation: `features`, `convert`, `export`, `doctor`, `info`, `models`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from avhubert.cli.arguments import MODALITY_CHOICES, add_compute, add_modality, add_streams, stream_choice
from avhubert.cli.output import show, show_values
from avhubert.cli.parser import Command
from avhubert.errors import AvhubertError


def _features_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="DATA_OR_FILE", help="data directory, recording or folder of recordings")
    parser.add_argument(
        "--model", required=True, metavar="MODEL", help="model directory, published checkpoint or builtin"
    )
    parser.add_argument("--layer", type=int, metavar="L", help="0: the encoder's input; default: the encoder's output")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--split", metavar="S", help="split of the data directory (default: all)")
    add_modality(parser)
    parser.add_argument(
        "--units", type=Path, metavar="LABELS", help="also write cluster ids, by the centroids of this label folder"
    )
    add_streams(parser)
    add_compute(parser)


def _features(options: argparse.Namespace) -> None:
    from avhubert.features.extract import extract_features

    files = extract_features(
        options.source,
        options.model,
        layer=options.layer,
        out=options.out,
        split=options.split,
        modality=options.modality,
        units=options.units,
        device=options.device,
        precision=options.precision,
        streams=stream_choice(options),
    )
    show(f"{len(files)} files in {options.out}")


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="MODEL",
        help="published checkpoint (.pt), AVista folder or name on the Hub; with --to-…: a model directory",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="model directory, or file with --to-fairseq")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--to-fairseq", action="store_true", help="write the published format")
    target.add_argument("--to-avista", action="store_true", help="write the AVista folder that the model was made of")


def _convert(options: argparse.Namespace) -> None:
    from avhubert.checkpoints.avista.write import to_avista
    from avhubert.checkpoints.conversion import convert
    from avhubert.checkpoints.fairseq.write import to_fairseq

    function = to_fairseq if options.to_fairseq else to_avista if options.to_avista else convert
    for note in function(options.source, options.out):
        show(note)
    show(f"wrote {options.out}")


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="model directory, published checkpoint, name on the Hub or builtin"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to create")
    parser.add_argument(
        "--modality", choices=MODALITY_CHOICES, help="inputs of the encoder (default: those it was fine-tuned with)"
    )


def _export(options: argparse.Namespace) -> None:
    from avhubert.checkpoints.load import load
    from avhubert.checkpoints.onnx import export

    for name, difference in export(load(options.model), options.out, options.modality).items():
        show(f"{name}.onnx  at most {difference:.1e} from the model")
    show(f"wrote {options.out}; its inputs and outputs are described in {options.out / 'README.md'}")


def _doctor_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def _doctor(options: argparse.Namespace) -> None:
    from rich.console import Console

    from avhubert.tools import doctor

    checks = doctor.examine()
    if options.json:
        show(json.dumps(doctor.as_json(checks), indent=1))
    else:
        Console().print(doctor.table(checks))
    problem = doctor.verdict(checks)
    if problem is not None:
        raise AvhubertError(problem)


def _info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", metavar="PATH", help="one of these, a published checkpoint, a name on the Hub, or builtin"
    )
    add_streams(parser)


def _info(options: argparse.Namespace) -> None:
    from avhubert.tools.info import describe

    show_values(describe(options.path, stream_choice(options)))


def _models_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=("fetch",), help="check the files, which are in the package, and print their paths"
    )


def _models(options: argparse.Namespace) -> None:
    from avhubert.prepare.detectors.models import paths

    for name, path in paths().items():
        show(f"{name}: {path}")


COMMANDS = (
    Command(
        "features",
        "write the features of one layer, one .npy file [T, D] per clip at 25 Hz",
        "avhubert features data/433h --model runs/iter1 --layer 4 --out features",
        _features_arguments,
        _features,
    ),
    Command(
        "convert",
        "convert a published checkpoint or an AVista model to a model directory, or back",
        "avhubert convert base_vox_iter5.pt base_vox_iter5",
        _convert_arguments,
        _convert,
    ),
    Command(
        "export",
        "export a model to ONNX and compare it with ONNX Runtime",
        "avhubert export runs/ft/best onnx",
        _export_arguments,
        _export,
    ),
    Command(
        "doctor",
        "check this machine: what is installed, what is missing, how to fix it",
        "avhubert doctor --json",
        _doctor_arguments,
        _doctor,
    ),
    Command(
        "info",
        "describe a model, run, data directory, label folder, recording or folder of recordings",
        "avhubert info runs/demo/model",
        _info_arguments,
        _info,
    ),
    Command(
        "models",
        "check the face models",
        "avhubert models fetch",
        _models_arguments,
        _models,
    ),
)
