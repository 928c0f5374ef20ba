"""Files of every length and kind, a minute at a time; streams that end early, faces that go."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import avhubert
from avhubert.config.schema import DecodeConfig
from avhubert.data.audio import write_wav
from avhubert.data.video import probe, read_frames, write_video
from avhubert.errors import CheckpointError, ConfigError, MediaError
from avhubert.model.recognizer import Recognizer
from avhubert.transcription import decoding, reader
from avhubert.transcription.burn_in import burn_in
from avhubert.transcription.decoding import WindowDecoder
from avhubert.transcription.pipeline import Transcription, transcribe
from avhubert.transcription.segmenter import Window
from avhubert.transcription.transcript import Segment
from tests.fake_device import fake_gpu, move

Talk = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def long(talk: Talk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sentences, with a pause after each."""
    pictures, sound = talk
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    still = np.repeat(pictures[-1:], 30, 0)
    parts = [*pictures, *still] * 6
    write_video(path, parts, audio=np.tile(np.concatenate([sound, np.zeros(30 * 640, np.int16)]), 6))
    return path


def test_the_public_function_stays_one_when_called_again(long: Path, recognizer: Recognizer) -> None:
    assert callable(avhubert.transcribe)
    from avhubert.transcription import batch  # noqa: F401

    assert avhubert.transcribe is transcribe


@pytest.mark.parametrize("modality", ["a", "v", "av"])
def test_minute_by_minute_is_the_same_as_at_once(
    long: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch, modality: str
) -> None:
    whole = transcribe(long, recognizer, modality)
    monkeypatch.setattr(reader, "CHUNK_SECONDS", 8)
    parts = transcribe(long, recognizer, modality)
    assert whole.modality == parts.modality == modality
    assert len(whole.segments) == len(parts.segments) == 6
    for one, other in zip(whole.segments, parts.segments, strict=True):
        assert other.start == pytest.approx(one.start, abs=0.3)
        assert other.end == pytest.approx(one.end, abs=0.3)
    assert all(a.end <= b.start + 1e-6 for a, b in itertools.pairwise(parts.segments))
    assert [word.segment for word in parts.words] == sorted(word.segment for word in parts.words)


def test_segments_stream_before_the_end_is_read(
    long: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "CHUNK_SECONDS", 8)
    running = transcribe(long, recognizer, stream=True)
    first = next(running)
    assert first.start == 0
    assert running.position_seconds < running.duration_seconds - 5
    rest = list(running)
    assert running.transcript().segments == [first, *rest]


def test_faces_and_their_boxes(long: Path, recognizer: Recognizer, talk: Talk, tmp_path: Path) -> None:
    running = Transcription(long, recognizer)
    found = running.transcript()
    assert (found.modality, found.reason) == ("av", "audio and lips are both there")
    assert all("segments are uncertain" in warning for warning in found.warnings)  # random weights
    left, top, right, bottom = found.segments[0].box or (0, 0, 0, 0)
    assert 0 < left < 112 < right < 224
    assert 0 < top < bottom < 224
    middle = running.mouths[0].corners[0].mean(0)
    assert left < middle[0] < right
    assert (top + bottom) / 2 < middle[1] < bottom  # the mouth is in the lower half of the face
    burn_in(long, found, running.mouths, tmp_path / "captioned.mp4")
    before, after = next(read_frames(long)).astype(int), next(read_frames(tmp_path / "captioned.mp4")).astype(int)
    x, y = running.mouths[0].corners[0][0].round().astype(int)
    assert np.abs(after - before)[y - 1 : y + 2, x - 1 : x + 2].max() > 40  # the box's corner
    assert np.abs(after - before)[:40, :40].max() < 20


def test_a_face_that_goes_is_told_and_the_sound_read(
    talk: Talk, recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, sound = talk
    seconds = len(pictures) / 25
    wall = np.full_like(pictures, 90)
    path = tmp_path / "goes.mp4"
    write_video(path, [*pictures, *wall, *wall], audio=np.tile(sound, 3))
    monkeypatch.setattr(reader, "CHUNK_SECONDS", int(seconds) + 1)
    found = transcribe(path, recognizer)
    assert {segment.modality for segment in found.segments} >= {"a"}
    assert any("no face was found" in warning and "only the audio is used" in warning for warning in found.warnings)
    asked = transcribe(path, recognizer, "v")
    assert any("there is no face; it is not read" in warning for warning in asked.warnings)
    asked = transcribe(path, recognizer, "av")
    assert any("there is no face; the other stream is read alone" in warning for warning in asked.warnings)


def test_video_is_read_wherever_the_face_is_visible(talk: Talk, recognizer: Recognizer, tmp_path: Path) -> None:
    pictures, sound = talk
    wall = np.full_like(pictures, 90)
    seconds = len(pictures) / 25

    late = tmp_path / "late.mp4"
    write_video(late, [*wall, *wall, *wall, *pictures], audio=np.tile(sound, 4))
    running = Transcription(late, recognizer)
    found = running.transcript()
    assert {segment.modality for segment in found.segments if segment.end <= 3 * seconds + 0.1} == {"a"}
    assert {segment.modality for segment in found.segments if segment.start >= 3 * seconds - 0.1} == {"av"}
    assert found.segments[-1].start == pytest.approx(3 * seconds, abs=0.5)
    assert found.modality == "a"
    hidden, both = "without the lips: no face is visible, or only in few frames", "audio and lips are both there"
    assert found.reason == f"{hidden}; {seconds:.0f} s from av: {both}"
    assert running.mouths[0].start == pytest.approx(3 * len(pictures), abs=5)

    returns = tmp_path / "returns.mp4"
    left, right = np.concatenate([pictures, wall], axis=2), np.concatenate([wall, pictures], axis=2)
    nobody = np.concatenate([wall, wall], axis=2)
    write_video(returns, [*left, *left, *nobody, *nobody[:40], *right], audio=np.tile(sound, 5)[: 640 * 280])
    found = transcribe(returns, recognizer)
    modalities = [(segment.modality, segment.start) for segment in found.segments]
    assert [modality for modality, _ in itertools.groupby(modalities, lambda pair: pair[0])] == ["av", "a", "av"]
    assert found.modality == "av"
    assert found.reason.startswith(f"{both}; 4 s from a: {hidden}")
    assert [word.segment for word in found.words] == sorted(word.segment for word in found.words)


def test_sound_that_outlasts_the_picture_and_the_other_way_round(
    talk: Talk, recognizer: Recognizer, tmp_path: Path
) -> None:
    pictures, sound = talk
    seconds = len(pictures) / 25
    write_video(tmp_path / "a.mp4", pictures, audio=np.tile(sound, 2))
    found = transcribe(tmp_path / "a.mp4", recognizer)
    assert found.segments[-1].end == pytest.approx(2 * seconds, abs=0.1)
    assert found.segments[-1].modality == "a"
    write_video(tmp_path / "one.mp4", pictures[:1], audio=sound)
    assert transcribe(tmp_path / "one.mp4", recognizer).reason == "without the lips: the video has ended"
    write_video(tmp_path / "v.mp4", np.tile(pictures, (2, 1, 1, 1)), audio=sound)
    found = transcribe(tmp_path / "v.mp4", recognizer, "v")
    assert found.segments[-1].end == pytest.approx(2 * seconds, abs=0.1)


@pytest.mark.parametrize("extra", [1, 200, 639])
def test_no_time_is_after_the_end_of_the_file(talk: Talk, recognizer: Recognizer, tmp_path: Path, extra: int) -> None:
    pictures, sound = talk
    speech = sound[: 40 * 640 + extra]
    write_wav(tmp_path / "speech.wav", speech)
    write_video(tmp_path / "talk.mp4", pictures[:41], audio=speech)
    for name in ("speech.wav", "talk.mp4"):
        duration = probe(tmp_path / name).duration_seconds
        for modality in ("a", "auto"):
            found = transcribe(tmp_path / name, recognizer, modality)
            assert found.segments[-1].end == pytest.approx(duration, abs=0.04)
            assert max(part.end for part in [*found.segments, *found.words]) <= duration
            assert all(part.start <= part.end for part in [*found.segments, *found.words])


def test_silence_is_not_read(recognizer: Recognizer, tmp_path: Path) -> None:
    write_wav(tmp_path / "silence.wav", np.zeros(32_000, np.int16))
    found = transcribe(tmp_path / "silence.wav", recognizer)
    assert (found.text, found.segments, found.warnings) == ("", [], ["no speech was found in the audio"])


def test_a_model_that_finds_no_words_says_so(
    long: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = WindowDecoder._segment

    def silent_at_the_end(*arguments: Any) -> Segment:
        segment = spoken(*arguments)
        return replace(segment, text="", words=()) if arguments[-1] >= 4 else segment

    with monkeypatch.context() as patch:
        patch.setattr(WindowDecoder, "_segment", silent_at_the_end)
        found = transcribe(long, recognizer, "a")
    told = "it read: speech unlike its training, or no speech"
    assert found.warnings[0] == f"the model found no words in 2 of the 6 segments that {told}"
    assert "the words of 4 of 4 segments are uncertain (mean confidence below 0.4), first at 0:00" in found.warnings[1]
    monkeypatch.setattr(recognizer, "decode_settings", DecodeConfig(beam=1, max_len_a=0.0, max_len_b=0))
    found = transcribe(long, recognizer, "a")
    assert (found.text, found.warnings) == ("", [f"the model found no words in what {told}"])


def test_lips_moved_against_the_sound_are_warned_about(talk: Talk, recognizer: Recognizer, tmp_path: Path) -> None:
    pictures, sound = talk
    pictures, sound = np.tile(pictures, (3, 1, 1, 1)), np.tile(sound, 3)
    write_video(tmp_path / "late.mp4", pictures[:-10], audio=sound[10 * 640 :])
    found = transcribe(tmp_path / "late.mp4", recognizer, "av")
    assert any("0.40 s after the audio" in warning or "0.36 s after" in warning for warning in found.warnings)


def test_a_dark_picture_is_warned_about(talk: Talk, recognizer: Recognizer, tmp_path: Path) -> None:
    pictures, sound = talk
    write_video(tmp_path / "dark.mp4", pictures // 5, audio=sound)
    assert any("dark" in warning for warning in transcribe(tmp_path / "dark.mp4", recognizer, "av").warnings)


@pytest.mark.parametrize(
    ("modality", "what", "message"),
    [
        ("v", "sound", "has no video track; choose modality a"),
        ("a", "picture", "has no audio track; choose modality v"),
        ("v", "wall", "no face was found"),
    ],
)
def test_what_is_asked_and_missing_is_refused(
    modality: str, what: str, message: str, recognizer: Recognizer, tmp_path: Path
) -> None:
    path = tmp_path / f"{what}.mp4"
    if what == "sound":
        path = tmp_path / "sound.wav"
        write_wav(path, np.zeros(16_000, np.int16))
    else:
        write_video(path, [np.full((64, 64, 3), 90, np.uint8)] * 20)
    with pytest.raises(MediaError, match=message):
        transcribe(path, recognizer, modality)


def test_a_modality_that_the_model_does_not_know_is_refused(recognizer: Recognizer, long: Path) -> None:
    with pytest.raises(ConfigError, match="unknown modality 'va'; known: auto, av, a, v"):
        transcribe(long, recognizer, "va")
    recognizer.metadata.modalities = ["a"]
    try:
        with pytest.raises(ConfigError, match="fine-tuned for a, not for 'v'"):
            transcribe(long, recognizer, "v")
    finally:
        recognizer.metadata.modalities = None


def test_no_model_is_named() -> None:
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        transcribe("x.mp4", "nowhere")


@settings(max_examples=8)
@given(st.lists(st.integers(20, 160), min_size=1, max_size=6), st.integers(0, 999))
def test_batches_of_windows_give_what_each_alone_gives(recognizer: Recognizer, lengths: list[int], seed: int) -> None:
    starts = list(itertools.accumulate(lengths, initial=0))
    windows = [Window(a, b, a, b) for a, b in itertools.pairwise(starts)]
    groups = list(decoding.batches(windows))
    assert [window for group in groups for window in group] == windows
    for group in groups:
        assert len(group) == 1 or len(group) * max(w.end - w.start for w in group) <= decoding.FRAMES_PER_BATCH


# --------------------------------------------------------------------------- device, precision, decoding settings
def test_decoding_settings_replace_those_of_the_model(long: Path, recognizer: Recognizer) -> None:
    found = transcribe(long, recognizer, "a", decode={"min_len": 3, "max_len_b": 3})
    assert all(len(segment.text.replace(" ", "")) <= 3 for segment in found.segments)
    assert found.text
    assert recognizer.decode_settings.min_len == 6
    with pytest.raises(ConfigError, match="decode: unknown key 'bem'"):
        transcribe(long, recognizer, "a", decode={"bem": 3})
    with pytest.raises(ConfigError, match="beam"):
        transcribe(long, recognizer, "a", decode={"beam": 0})
    with pytest.raises(ConfigError, match=r"no\.arpa"):
        transcribe(long, recognizer, "a", decode={"lm": "no.arpa", "lm_weight": 0.5})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not on this machine"),
        ({"device": "cpu", "precision": "fp16"}, "precision fp16 needs a GPU"),
        ({"precision": "int8"}, "unknown precision 'int8'"),
    ],
)
def test_a_device_or_precision_that_is_missing_is_refused(
    options: dict[str, str], message: str, long: Path, recognizer: Recognizer
) -> None:
    with pytest.raises(ConfigError, match=message):
        transcribe(long, recognizer, **options)


def test_half_precision_gives_the_same_words_and_times(long: Path, recognizer: Recognizer) -> None:
    full, half = (transcribe(long, recognizer, device="cpu", precision=name) for name in ("fp32", "bf16"))
    assert [(s.start, s.end) for s in half.segments] == [(s.start, s.end) for s in full.segments]
    assert half.segments[0].score == pytest.approx(full.segments[0].score, abs=0.05)


@pytest.mark.parametrize("modality", ["a", "v", "av"])
def test_all_tensors_of_a_call_are_on_one_device(
    modality: str, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = 100
    rng = np.random.default_rng(0)
    chunk = reader.Chunk(
        start=0,
        frames=frames,
        final=True,
        samples=rng.integers(-3000, 3000, frames * 640).astype(np.int16),
        mouth=rng.integers(0, 255, (frames, 96, 96)).astype(np.uint8),
    )
    windows = [Window(0, 60, 0, 60), Window(60, 100, 60, 100)]
    model = copy.deepcopy(recognizer, {id(recognizer.tokenizer): recognizer.tokenizer})
    decoder = WindowDecoder(model, "cpu", "fp32", {"min_len": 1, "max_len_a": 0.2, "max_len_b": 0})
    inputs = decoding.model_inputs(chunk, windows, modality)
    monkeypatch.setattr(decoding, "model_inputs", lambda *_: inputs)
    with fake_gpu(monkeypatch) as device:
        move(model, device)
        decoder.compute = replace(decoder.compute, device=device)
        assert len(list(decoder.segments(chunk, windows, modality, 0))) == 2
