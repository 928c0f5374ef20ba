"""Writes the pages of the documentation site that are made from the code: python docs/generate.py

`make docs` runs it before it builds the site. Of the generated pages only docs/results.md is committed, so that it can
be read without the site.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))  # this checkout's package, installed or not

RESULTS = DOCS / "results.json"


def pages() -> dict[str, str]:
    """Path below docs/ → text of every generated page."""
    return {
        "reference/cli.md": cli_page(),
        "reference/configuration.md": configuration_page(),
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
    usage = " ".join(sub.format_usage().removeprefix("usage: ").split())
    yield f"```text\n{usage}\n```"
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


# --------------------------------------------------------------------------- configuration
def configuration_page() -> str:
    """Every configuration key with its type, default, allowed values and meaning, from the schema."""
    from avhubert.config import presets
    from avhubert.config.reference import describe

    parts = [
        "# Configuration keys",
        "Made from `avhubert/config/schema.py`. A command takes keys as `key=value`, for example "
        "`optimizer.lr=1e-4` or `train.trackers=[tensorboard]`; `~key` restores the default. Lengths in frames are "
        "video frames at 25 Hz. `RUN/resolved.yaml` holds the values that a run used.",
    ]
    for command in ("pretrain", "finetune", "iterate"):
        names = ", ".join(f"`{name}`" for name in presets(command))
        parts += [f"## avhubert {command} {{ #{command} }}", f"Presets (`--config-name`): {names}."]
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
                parts += [title, _cell(group.help), _table(header, rows)]
    return "\n\n".join(parts) + "\n"


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
    rows = [tuple(_value(cell) for cell in row) for row in entry["rows"]]
    yield _table(tuple(column or " " for column in entry["columns"]), rows)
    facts = [f"`{entry['command']}`", entry["hardware"], entry["date"]]
    if "seeds" in entry:
        facts.append(f"seed{'s' * (len(entry['seeds']) > 1)} {', '.join(map(str, entry['seeds']))}")
    facts += [f"{name}: {entry[name]}" for name in ("unit", "interval", "goal") if name in entry]
    yield " · ".join(facts) + "."
    if "note" in entry:
        yield entry["note"]


def _value(cell: Any) -> str:
    if isinstance(cell, dict):
        return f"{_value(cell['value'])} [{_value(cell['low'])}, {_value(cell['high'])}]"
    return "" if cell is None else str(cell).replace("-", "−") if isinstance(cell, (int, float)) else cell


if __name__ == "__main__":
    for path, text in pages().items():
        (DOCS / path).write_text(text, encoding="utf-8")
