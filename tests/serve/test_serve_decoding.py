"""Uploads are read in a process: one that crashes or hangs it costs only its own request."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="FastAPI is not installed (pip install 'avhubert[serve]')")

from avhubert.data.audio import write_wav
from avhubert.data.media import DamageLog
from avhubert.errors import CheckpointError, MediaError
from avhubert.serve.decoding import Decoder, RemoteReader
from avhubert.serve.noise import WHITE_NOISE, Noise, NoisyReader
from avhubert.serve.uploads import request_error
from avhubert.transcription.reader import Reader

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(stall_seconds=6)
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "talk.wav"
    write_wav(path, (8000 * np.sin(np.arange(100_000) / 9)).astype(np.int16))
    return path


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def fail(path: Path) -> None:
    raise MediaError(f"{path} is damaged", kind="damaged", path=path)


def lack_models() -> None:
    raise CheckpointError("the face models are missing")


def test_a_crash_and_a_hang_fail_one_call_each(decoder: Decoder, recording: Path) -> None:
    with pytest.raises(MediaError, match=r"talk\.wav cannot be read: the decoder crashed \(SIGSEGV\)") as crashed:
        decoder.call(recording, crash)
    error = request_error(crashed.value, recording)
    assert (error.status, error.message) == (422, "the file cannot be read: the decoder crashed (SIGSEGV)")
    with pytest.raises(MediaError, match=r"talk\.wav cannot be read: no progress for 6 s"):
        decoder.call(recording, partial(time.sleep, 3600))
    with pytest.raises(MediaError, match="is damaged") as damaged:
        decoder.call(recording, partial(fail, recording))
    assert (damaged.value.kind, damaged.value.path) == ("damaged", recording)
    with pytest.raises(CheckpointError, match="the face models are missing"):
        decoder.call(recording, lack_models)
    assert decoder.probe(recording).has_audio


def test_chunks_are_those_of_a_reader_in_this_process(decoder: Decoder, recording: Path) -> None:
    remote, local = RemoteReader(decoder, recording, True, False), Reader(recording, True, False)
    mine, its = local.read(0), remote.read(0)
    assert mine is not None
    assert its is not None
    assert np.array_equal(mine.samples, its.samples)
    assert np.array_equal(mine.loudness, its.loudness)
    assert (mine.frames, mine.final) == (its.frames, its.final)
    noisy = RemoteReader(decoder, recording, True, False, partial(NoisyReader, Noise(WHITE_NOISE, 0.0))).read(0)
    assert noisy is not None
    assert not np.array_equal(noisy.samples, its.samples)
    with pytest.raises(MediaError, match="gone"):
        RemoteReader(decoder, recording.with_name("gone.wav"), True, False).read(0)


def test_what_is_damaged_is_reported(decoder: Decoder, recording: Path, tmp_path: Path) -> None:
    damage = DamageLog()
    with pytest.raises(MediaError, match="does not exist"):
        decoder.probe(tmp_path / "gone.wav", damage=damage)
    assert not damage
