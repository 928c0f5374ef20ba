"""`avhubert demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

from avhubert.cli.arguments import add_seed
from avhubert.cli.parser import Command


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="output folder (default runs/demo)"
    )
    parser.add_argument(
        "--size",
        choices=("smoke", "quick", "full"),
        default="quick",
        help="about 2 min, 15 min or 2 h on 2 cores (default quick)",
    )
    add_seed(parser, 1)


def _run(options: argparse.Namespace) -> None:
    from avhubert.recipes.demo import run

    run(options.out, options.size, seed=options.seed)


DEMO = Command(
    "demo",
    "run the whole pipeline on a synthetic corpus, from videos to text, and write a report",
    "avhubert demo --size quick --out runs/demo",
    _arguments,
    _run,
)
