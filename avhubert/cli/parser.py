"""The argument parser of the command line: subcommands as records, and one-sentence usage errors with suggestions."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn


@dataclass(frozen=True)
class Command:
    """A subcommand: its name and help, a function that declares its arguments, and a function that runs it."""

    name: str
    help: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


class Parser(argparse.ArgumentParser):
    """An argument parser whose usage errors are one sentence on stderr and exit code 2.

    A misspelled command or option is reported before missing arguments: an argument is often missing because its
    option was misspelled.
    """

    arguments: Sequence[str] = ()

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse as argparse does, and remember the arguments for `error`."""
        self.arguments = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and one sentence."""
        self.exit(2, f"avhubert: {self._misspelling(self.arguments) or f'{message} (see `{self.prog} --help`)'}\n")

    def _misspelling(self, words: Sequence[str]) -> str:
        """A sentence about the first unknown command or option, or '' if all are known."""
        if self._subparsers is not None and words and not words[0].startswith("-"):
            (action,) = self._subparsers._group_actions
            commands = dict(action.choices or ())
            if words[0] in commands:
                sentence: str = commands[words[0]]._misspelling(words[1:])
                return sentence
            hint = _suggestion(words[0], list(commands)) or ": " + ", ".join(commands)
            return f"there is no command '{words[0]}'{hint} (see `{self.prog} --help`)"
        options = list(self._option_string_actions)
        for word in words:
            name = word.partition("=")[0]
            if name.startswith("--") and not any(option.startswith(name) for option in options):
                return f"there is no option {name}{_suggestion(name, options)} (see `{self.prog} --help`)"
        return ""


def build_parser(commands: Iterable[Command]) -> Parser:
    """The parser of the `avhubert` command with these subcommands, in this order."""
    parser = Parser(
        prog="avhubert",
        description="Audio-visual speech recognition: prepare videos, train models, transcribe.",
        epilog="Start with: avhubert transcribe --sample",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    for command in commands:
        description = command.help[0].upper() + command.help[1:] + "."
        subparser = subparsers.add_parser(command.name, help=command.help, description=description)
        subparser.epilog = f"Example: {command.example}"
        subparser.set_defaults(run=command.run)
        command.add_arguments(subparser)
    return parser


def _suggestion(word: str, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {matches[0]}?" if matches else ""
