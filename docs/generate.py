"""Writes the pages of the documentation site that are made from the code: python docs/generate.py

`make docs` runs it before it builds the site. Of the generated pages only docs/results.md is committed, so that it can
be read without the site.
"""

from __future__ import annotations

import argparse
import ast
import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))  # this checkout's package, installed or not

_BLANK = "\n\n"  # ends the first paragraph
RESULTS = DOCS / "results.json"


def pages() -> dict[str, str]:
    """Path below docs/ → text of every generated page."""
    return {
        "reference/cli.md": cli_page(),
        "reference/configuration.md": configuration_page(),
        "reference/modules.md": modules_page(),
        "changelog.md": _from_root("CHANGELOG.md"),
        "contributing.md": _from_root("CONTRIBUTING.md"),
        "results.md": results_page(),
    }


def _from_root(name: str) -> str:
    """A document of the repository's root as a page; its links into docs/ become relative to docs/."""
    return (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")


def _cell(text: str) -> str:
    """Text for one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("{", "&#123;").replace("<", "&lt;")


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


# --------------------------------------------------------------------------- commands
def cli_page() -> str:
    """Every command with its usage, its example and its options, from the parser."""
    from avhubert.cli.app import parser

    main = parser()
    (commands,) = [action for action in main._actions if isinstance(action, argparse._SubParsersAction)]
    helps = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    parts = [
        "# Commands",
        "Made from the command line's parser. `avhubert COMMAND --help` prints the same text. Exit codes: 0 success, "
        "1 failure, 2 wrong usage or input, 130 interrupted.",
        _table(("command", "purpose"), [(f"[`{name}`](#{name})", _cell(helps[name])) for name in commands.choices]),
    ]
    for name, sub in commands.choices.items():
        parts += _command(name, sub)
    return "\n\n".join(parts) + "\n"


def _command(name: str, sub: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## {name} {{ #{name} }}"
    yield (sub.description or "").strip()
    sub.formatter_class = functools.partial(argparse.HelpFormatter, width=88)  # whatever the terminal's width
    yield f"```text\n{sub.format_usage().removeprefix('usage: ').strip()}\n```"
    if sub.epilog:
        yield f"```console\n$ {sub.epilog.strip().removeprefix('Example:').removeprefix('example:').strip()}\n```"
    rows = [row for action in sub._actions if (row := _option(action))]
    if rows:
        yield _table(("argument", "default", "meaning"), rows)


def _option(action: argparse.Action) -> tuple[str, str, str] | None:
    """One row: argument, default, meaning; None for --help."""
    if isinstance(action, argparse._HelpAction):
        return None
    name = ", ".join(f"`{option}`" for option in action.option_strings)
    value = action.metavar or (None if action.nargs == 0 else action.dest)
    if isinstance(value, tuple):
        value = " ".join(value)
    choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices and not action.metavar else None
    shown = f"`{choices or value}`" if value and action.nargs != 0 else ""
    required = action.required and action.option_strings
    default = "" if action.default in (None, False, [], argparse.SUPPRESS) else f"`{action.default}`"
    return " ".join(filter(None, (name, shown))), "required" if required else default, _cell(action.help or "")


# --------------------------------------------------------------------------- modules
def modules_page() -> str:
    """Every module with the first paragraph of its docstring."""
    parts = ["# Modules", "Made from the docstrings. What a package may import: [Architecture](../architecture.md)."]
    package = ROOT / "avhubert"
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        name = folder.relative_to(ROOT).as_posix().replace("/", ".")
        rows = []
        for path in sorted(folder.glob("*.py")):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            if path.name == "__init__.py":
                parts.append(f"## {name}\n\n{text.partition(_BLANK)[0]}".strip())
            else:
                rows.append((f"`{path.name}`", _cell(text.partition(_BLANK)[0])))
        if rows:
            parts.append(_table(("file", "purpose"), rows))
    return "\n\n".join(parts) + "\n"


# --------------------------------------------------------------------------- configuration
def configuration_page() -> str:
    """Every configuration key with its type, default, allowed values and meaning, from the schema."""
    from avhubert.config.reference import describe

    parts = [
        "# Configuration keys",
        "Made from `avhubert/config/schema.py`. A command takes keys as `key=value`, for example "
        "`optimizer.lr=1e-4` or `train.trackers=[tensorboard]`; `~key` restores the default. Lengths in frames are "
        "video frames at 25 Hz. `RUN/resolved.yaml` holds the values that a run used.",
    ]
    parts += ["## Presets", *_presets()]
    for command in ("pretrain", "finetune", "iterate"):
        parts.append(f"## avhubert {command} {{ #{command} }}")
        for group in describe(command):
            rows = [
                (
                    f"`{key.key}`",
                    _cell(f"`{key.type}`"),
                    key.default if key.default == "required" else f"`{key.default}`",
                    _cell(", ".join(filter(None, (key.allowed, key.unit)))),
                    _cell(key.help),
                )
                for key in group.keys
            ]
            if rows:
                title = f"### {command}: {group.prefix or 'top level'}"
                header = ("key", "type", "default", "allowed values, unit", "meaning")
                parts += [title, *([_cell(group.help)] if group.prefix else []), _table(header, rows)]
    return "\n\n".join(parts) + "\n"


def _presets() -> Iterator[str]:
    """For each command its presets with what they change, and their parents."""
    from avhubert.config.composition import PRESETS

    yield (
        "A preset (`--config-name NAME`) is a YAML file in `avhubert/config/presets/` with what differs from its "
        "parents and from the defaults below. With `--config-dir DIR` you give presets of your own, which may have "
        "these as parents (`defaults: [NAME, _self_]`)."
    )
    for title, folder in (
        ("avhubert pretrain", "pretrain"),
        ("avhubert finetune", "finetune"),
        ("avhubert iterate", "recipe"),
    ):
        yield f"### Presets of {title}"
        rows = []
        for path in sorted((PRESETS / folder).glob("*.yaml")):
            lines = path.read_text(encoding="utf-8").splitlines()
            parents = [line.removeprefix("defaults: ").strip("[]") for line in lines if line.startswith("defaults:")]
            comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
            named = ", ".join(f"`{name}`" for name in ", ".join(parents).split(", ") if name not in ("", "_self_"))
            rows.append((f"`{path.stem}`", named, _cell(" ".join(comments))))
        yield _table(("preset", "parents", "content"), rows)


# --------------------------------------------------------------------------- results
def results() -> list[dict[str, Any]]:
    """Every recorded measurement; benchmarks/record.py describes the fields."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def results_page() -> str:
    """Every figure that the documents state, grouped, with what is needed to measure it again."""
    entries = results()
    parts = [
        "# Results",
        "Every figure that these documents state, with the command that measures it. The page is made by "
        "`python docs/generate.py` from `docs/results.json`, which the measuring scripts write "
        "(`benchmarks/record.py`). [The log](log.md) says what was tried and why.",
        "Read the intervals with care: an interval over utterances does not include the variation between training "
        "seeds, which for the small models here is several points. Values after ± are explained at each table; "
        "numbers in brackets are the interval. WER is the [word error rate](reference/glossary.md#wer); A, V and AV "
        "are [modalities](reference/glossary.md#modality).",
    ]
    group = ""
    for entry in entries:
        if entry["group"] != group:
            group = entry["group"]
            parts.append(f"## {group}")
        parts += _result(entry)
    return "\n\n".join(parts) + "\n"


def _result(entry: dict[str, Any]) -> Iterator[str]:
    yield f"### {entry['title']} {{ #{entry['id']} }}"
    yield result_table(entry)
    facts = [f"`{entry['command']}`", entry["hardware"], entry["date"]]
    if "seeds" in entry:
        facts.append(f"seed{'s' * (len(entry['seeds']) > 1)} {', '.join(map(str, entry['seeds']))}")
    facts += [f"{name}: {entry[name]}" for name in ("unit", "interval", "goal") if name in entry]
    yield " · ".join(facts) + "."
    if "note" in entry:
        yield entry["note"]


def result_table(entry: dict[str, Any]) -> str:
    """The table of one measurement."""
    rows = [tuple(_value(cell) for cell in row) for row in entry["rows"]]
    return _table(tuple(column or " " for column in entry["columns"]), rows)


def _value(cell: Any) -> str:
    if isinstance(cell, dict):
        return f"{_value(cell['value'])} [{_value(cell['low'])}, {_value(cell['high'])}]"
    return "" if cell is None else str(cell).replace("-", "−") if isinstance(cell, (int, float)) else cell


if __name__ == "__main__":
    for path, text in pages().items():
        (DOCS / path).write_text(text, encoding="utf-8", newline="\n")
