"""Errors carry fields beside their message, and keep them between processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from avhubert.errors import AvhubertError, CheckpointError, ConfigError, DataError, MediaError, one_of

pytestmark = pytest.mark.quick

ERRORS = (AvhubertError, CheckpointError, ConfigError, DataError, MediaError)


@pytest.mark.parametrize("error", ERRORS)
def test_fields_are_optional(error: type[AvhubertError]) -> None:
    plain = error("no audio track")
    assert str(plain) == "no audio track"
    assert (plain.kind, plain.path, plain.clip_id) == (None, None, None)


@pytest.mark.parametrize("error", ERRORS)
def test_fields_survive_pickling(error: type[AvhubertError]) -> None:
    sent = error("a.mp4 has no audio track", kind="no audio track", path="a.mp4", clip_id="s/1")
    received = pickle.loads(pickle.dumps(sent))
    assert type(received) is error
    assert str(received) == str(sent)
    assert (received.kind, received.path, received.clip_id) == ("no audio track", Path("a.mp4"), "s/1")


def test_the_path_can_be_hidden() -> None:
    error = MediaError("/secret/a.mp4 has no audio track", path=Path("/secret/a.mp4"))
    assert error.with_path_as("the file") == "the file has no audio track"
    assert MediaError("no audio track").with_path_as("the file") == "no audio track"


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    quoted = "line\nbreak \x1b[31m tab\t surrogate \udc80 \u202ereversed, é 漢 \u200d"
    said = str(DataError(f"{quoted} cannot be used"))
    assert said == r"line\nbreak \x1b[31m tab\t surrogate \udc80 \u202ereversed, é 漢 " + "\u200d cannot be used"
    long = str(DataError("a" * 5000 + "z"))
    assert len(long) < 2010
    assert (long[0], long[-1]) == ("a", "z")


def test_only_wrong_usage_has_exit_code_2() -> None:
    assert {error.exit_code for error in ERRORS if error is not ConfigError} == {1}
    assert ConfigError.exit_code == 2


def test_an_unknown_name_lists_the_known_ones() -> None:
    assert one_of("preset", "x", ["b", "a"]) == "unknown preset 'x'; known: a, b"
