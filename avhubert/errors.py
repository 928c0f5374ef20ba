"""Errors that a user can meet, each one sentence: what is wrong, where, and how to mend it.

AvhubertError
├── ConfigError      a preset, key, value or option is wrong (exit code 2)
├── DataError        a data directory, manifest, transcript or label file is wrong (exit code 1)
├── MediaError       a video or sound file cannot be used (exit code 1)
└── CheckpointError  a model directory or checkpoint cannot be used (exit code 1)

`assert` is kept for our own bugs; anything that a user's input can cause is one of these.
"""


class AvhubertError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 1


class ConfigError(AvhubertError):
    """A preset, key, value or option that is unknown or out of range."""

    exit_code = 2


class DataError(AvhubertError):
    """A data directory, manifest, transcript or label file that cannot be used."""


class MediaError(AvhubertError):
    """A video or sound file that cannot be used."""


class CheckpointError(AvhubertError):
    """A model directory or checkpoint that cannot be used."""


def one_of(what: str, value: object, known) -> str:
    """The sentence for an unknown name: says the name and lists the known ones."""
    return f"unknown {what} '{value}'; known: {', '.join(str(name) for name in sorted(known))}"
