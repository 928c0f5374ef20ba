"""`make licences`: writes docs/reference/licences.md, the licence of every package that this one installs.

The licences are read from the metadata of the installed packages; NOTES adds what the metadata does not say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "licences.md"
COPYLEFT = re.compile(r"GPL|GNU|MPL|Mozilla|EPL|CDDL|EUPL|SSPL|OSL-|CC-BY-SA|Sleepycat")
EXTRAS_FOR_USERS = (
    *("prepare", "synth", "serve", "lm", "hf", "hub", "onnx", "english", "tensorboard", "wandb", "ray", "dlib"),
    *("test", "docs", "dev"),
)
# licences that the metadata does not name, from the packages' own licence files
STATED_ELSEWHERE = {
    "cuda-toolkit": "proprietary (NVIDIA CUDA Toolkit EULA)",
    "espeakng-loader": "not stated; contains espeak-ng, GPL-3.0-or-later",
    "kenlm": "LGPL-2.1-or-later",
}
SHORT = {
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Boost Software License": "BSL-1.0",
}


def main() -> None:
    """Write the page."""
    core = packages("")
    sections = [section("The package itself, without extras", core)]
    for extra in EXTRAS_FOR_USERS:
        added = sorted(set(packages(extra)) - set(core))
        sections.append(section(f"Added by the extra `{extra}`", added))
    PAGE.write_text(INTRODUCTION + "\n".join(sections), encoding="utf-8", newline="\n")


def packages(extra: str) -> list[str]:
    """The names of all packages that `avhubert` with an extra ('': none) requires here, directly or not, sorted."""
    found: set[str] = set()
    waiting = [("avhubert", extra)]
    seen = set(waiting)
    while waiting:
        name, wanted = waiting.pop()
        for requirement in requirements(name, wanted):
            found.add(canonicalize_name(requirement.name))
            for next_extra in ("", *requirement.extras):
                entry = (requirement.name, next_extra)
                if entry not in seen:
                    seen.add(entry)
                    waiting.append(entry)
    return sorted(found - {"avhubert"})


def requirements(name: str, extra: str) -> Iterator[Requirement]:
    """The requirements of an installed package on this system; of one that is not installed, none."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def licence(name: str) -> str:
    """The licence of a package; '' if it is not installed here."""
    if name in STATED_ELSEWHERE:
        return STATED_ELSEWHERE[name]
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    expression = about.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [line for line in about.get_all("Classifier") or [] if line.startswith("License ::")]
    stated = sorted({line.rpartition(":: ")[2] for line in classifiers})
    if not stated or stated == ["OSI Approved"]:
        stated = [(about.get("License") or "not stated").strip().partition("\n")[0]]
    return ", ".join(SHORT.get(text, text) for text in stated)


def is_copyleft(text: str) -> bool:
    """Whether a licence demands that works which contain the package have its licence, in part or as a whole."""
    choices = re.split(r"\s+OR\s+", text)
    return all(COPYLEFT.search(choice) for choice in choices)


def section(title: str, names: list[str]) -> str:
    """A heading and a table of packages and licences."""
    rows = [f"| {name} | {text} |" for name in names if (text := licence(name))]
    if not rows:
        return f"## {title}\n\nNothing more, or not installed where this page was made.\n"
    return "\n".join([f"## {title}", "", "| package | licence |", "| --- | --- |", *rows, ""])


INTRODUCTION = """# Licences of the requirements

This package is Apache-2.0. The tables list what `pip install` brings along on Linux, with the licence that each package
states (`make licences` makes them from the installed packages). A test fails if a requirement of the package itself has
a copyleft licence. What the metadata of a package does not say:

- **PyAV** (BSD-3-Clause): its wheels contain FFmpeg's libraries, which state "LGPL version 3 or later", and libraries
  that FFmpeg uses. Two of these are GPL-2.0-or-later: libx264, with which `avhubert prepare` writes mouth clips, and
  libx265. They are shared libraries that can be replaced. Who passes the wheels on, for example in a container, must
  keep to those licences. Patents on H.264, HEVC and AAC are not covered by any of them.
- **PyTorch** (BSD-3-Clause and others): its default build for Linux installs NVIDIA's CUDA libraries, which are under
  NVIDIA's own licence. The CPU build does not.
- **espeakng-loader** (extra `synth`): contains espeak-ng, GPL-3.0-or-later. Only the synthetic corpus needs it.
- **KenLM** (extra `lm`): LGPL-2.1-or-later.
- **Built-in model**: its weights are Apache-2.0; they were trained on clips of the GRID corpus (Cooke, Barker,
  Cunningham, Shao 2006), whose licence, CC BY 4.0, asks for this attribution. `NOTICE` has it in full.
- **Speech detector** (Silero VAD): MIT; its licence is beside its weights.
- **Face models**: Apache-2.0, by Google (MediaPipe); the files are in the package, with the licence beside them.
- NumPy's and SciPy's wheels contain OpenBLAS (BSD-3-Clause) and GCC's runtime libraries (GPL-3.0 with the exception
  that lets programs of any licence use them).

"""


if __name__ == "__main__":
    main()
