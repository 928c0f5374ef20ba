"""`make lock`: pins every requirement, also the indirect ones, for every Python and system, with hashes.

    python scripts/lock.py              # keeps the versions that are pinned already, where they fit
    python scripts/lock.py --upgrade    # takes the newest releases

constraints.txt has the versions, for `pip install -c constraints.txt`. requirements/NAME.txt has the versions and the
SHA-256 of their files, for `pip install --require-hashes --no-deps -r`; `make` installs those. PyTorch has no hash:
which build to install (CPU, or a version of CUDA) is a choice of the machine.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from matrix import ROOT, MatrixError, uv

CONSTRAINTS = ROOT / "constraints.txt"
LOCKS = ROOT / "requirements"
OLDEST_PYTHON = "3.10"
BUILD = ("hatchling", "editables")  # what builds this package
# uv ignores the upper bound of a release's Requires-Python: from 1.3 on, this one refuses Python 3.11 and later
BOUNDS = ("backports-strenum<1.3 ; python_version >= '3.11'",)
# file → the extras of the package that it has
EXTRAS = {
    "run": ("prepare", "synth"),
    "dev": ("prepare", "synth", "dev"),
    "docs": ("docs",),
    "lm": ("lm", "hf"),
    "bench": ("bench",),
}
OF_PYTORCH = re.compile(r"(torch|triton|nvidia-|cuda-)")
HEADER = "# Made by `make lock`; do not edit.\n"


def main() -> None:
    """Write constraints.txt and the files in requirements/."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest releases")
    options = parser.parse_args()
    LOCKS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        build = Path(scratch) / "build.in"
        build.write_text("\n".join(BUILD), encoding="utf-8", newline="\n")
        bounds = Path(scratch) / "bounds.txt"
        bounds.write_text("\n".join(BOUNDS), encoding="utf-8", newline="\n")
        pinned = Path(scratch) / "all.txt"
        if not options.upgrade:
            pinned.write_bytes(CONSTRAINTS.read_bytes())
        every_extra = sorted({extra for extras in EXTRAS.values() for extra in extras} | {"dlib"})
        resolve(pinned, build, every_extra, "--constraints", str(bounds))
        lines = [line for line in pinned.read_text(encoding="utf-8").splitlines() if "==" in line]
        of_pytorch = [name for line in lines if OF_PYTORCH.match(name := line.partition("==")[0])]
        kept = [line for line in lines if not OF_PYTORCH.match(line) or line.startswith("torch==")]
        text = HEADER + "# The versions that `make` installs and the tests ran with, for each Python and system.\n"
        CONSTRAINTS.write_text(text + "\n".join(kept) + "\n", encoding="utf-8", newline="\n")
        for name, extras in EXTRAS.items():
            target = Path(scratch) / f"{name}.txt"
            without = [word for package in dict.fromkeys(of_pytorch) for word in ("--no-emit-package", package)]
            resolve(target, build, extras, "--generate-hashes", "--constraints", str(pinned), *without)
            locked = target.read_text(encoding="utf-8")
            (LOCKS / f"{name}.txt").write_text(HEADER + locked, encoding="utf-8", newline="\n")


def resolve(target: Path, build: Path, extras: tuple[str, ...] | list[str], *how: str) -> None:
    """Write the pinned requirements of the package with these extras, for every Python and system."""
    words = [word for extra in extras for word in ("--extra", extra)]
    plain = ["--no-header", "--no-annotate", "--universal", "--python-version", OLDEST_PYTHON]
    uv("pip", "compile", *plain, *how, *words, "--output-file", str(target), str(ROOT / "pyproject.toml"), str(build))


if __name__ == "__main__":
    try:
        main()
    except MatrixError as problem:
        raise SystemExit(str(problem)) from None
