"""The talking-face corpus: layout, times, reproducibility, speech and mouth shapes."""

from __future__ import annotations

import builtins
import itertools
import json
import time
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avhubert.constants import LRS3_SPLITS, SAMPLE_RATE
from avhubert.corpora.synthetic import face, look, text, visemes, voice, writer
from avhubert.corpora.synthetic.performance import CorpusSettings, perform
from avhubert.corpora.synthetic.schedule import clip_spec
from avhubert.errors import ConfigError
from avhubert.files import sha256


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "corpus"
    writer.make_corpus(folder, 4, seed=7, workers=1)
    return folder


# ------------------------------------------------------------------ the corpus
def test_same_seed_gives_same_bytes_with_any_number_of_workers(corpus: Path, tmp_path: Path) -> None:
    writer.make_corpus(tmp_path / "again", 5, seed=7, workers=2)
    again = content(tmp_path / "again")
    assert {name: again[name] for name in content(corpus)} == content(corpus)
    assert len(again) == len(content(corpus)) + 3


def test_resumes_where_it_stopped(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    writer.make_corpus(folder, 4, seed=7, workers=1)
    deleted = next((folder / "test").rglob("*.txt"))
    deleted.unlink()
    existing = next((folder / "pretrain").rglob("*.mp4"))
    modified = existing.stat().st_mtime_ns
    summary = writer.make_corpus(folder, 4, seed=7, workers=1)
    assert (summary.made, summary.existing) == (1, 3)
    assert "3 existed already" in str(summary)
    assert existing.stat().st_mtime_ns == modified
    assert content(folder) == content(corpus)


def test_another_seed_gives_other_clips() -> None:
    clip = clip_spec(0, 4)
    first, second = (perform(clip, CorpusSettings(seed)) for seed in (1, 2))
    assert [word.label for word in first.words] != [word.label for word in second.words]
    assert not np.allclose(first.face.look.skin, second.face.look.skin)


def test_has_the_layout_of_lrs3(corpus: Path) -> None:
    videos = sorted(corpus.rglob("*.mp4"))
    assert [video.relative_to(corpus).parts[0] for video in videos] == ["pretrain", "test", "trainval", "trainval"]
    for video in videos:
        lines = video.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("Text:  ")
        assert lines[1].startswith("Conf:  ")
        assert lines[2:4] == ["", "WORD START END ASDSCORE"]
        words = lines[0][len("Text:  ") :].split()
        rows = [line.split() for line in lines[4:]]
        assert [row[0] for row in rows] == words
        for word, slot in zip(words, text.GRID, strict=True):
            assert word == word.upper()
            assert word.lower() in slot
        times = [float(value) for row in rows for value in row[1:3]]
        assert times == sorted(times)
        assert all(len(row) == 4 for row in rows)


def test_video_and_audio_have_the_same_length(corpus: Path) -> None:
    for path in corpus.rglob("*.mp4"):
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec.name, video.width, video.height, video.average_rate) == ("h264", 224, 224, 25)
            assert (audio.codec.name, audio.rate, audio.channels) == ("aac", 16000, 1)
            assert (video.start_time, audio.start_time) == (0, 0)
            assert video.duration * video.time_base == audio.duration * audio.time_base
            assert 35 <= video.frames <= 80
            seconds = float(video.duration * video.time_base)
        phones = json.loads(path.with_suffix(".phones.json").read_text(encoding="utf-8"))
        assert 0.1 <= phones[0]["start"] <= 0.3
        assert seconds - 0.35 <= phones[-1]["end"] <= seconds - 0.1


def test_audio_in_the_file_is_synchronous_with_the_phones(corpus: Path) -> None:
    clip = clip_spec(3, 4)
    path = (corpus / clip.stem).with_suffix(".mp4")
    phones = json.loads(path.with_suffix(".phones.json").read_text(encoding="utf-8"))
    with av.open(str(path)) as container:
        audio = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    performance = perform(clip, CorpusSettings(7))
    assert [phone["phone"] for phone in phones] == [phone.label for phone in performance.phones]
    correlation = [
        np.corrcoef(np.roll(audio, lag)[: len(performance.samples)], performance.samples)[0, 1]
        for lag in range(-64, 65)
    ]
    assert int(np.argmax(correlation)) == 64  # no lag
    assert max(correlation) > 0.9
    level = np.abs(performance.samples.astype(float))
    start, end = (int(seconds * 16000) for seconds in (phones[0]["start"], phones[-1]["end"]))
    assert level[: start - 80].max() < 100 < level[start:end].max()
    assert level[end + 160 :].max() < 100


# ------------------------------------------------------------------ splits and speakers
@given(clips=st.integers(4, 400), speakers=st.integers(2, 40))
def test_splits(clips: int, speakers: int) -> None:
    specs = [clip_spec(index, speakers) for index in range(clips)]
    counts = {split: sum(clip.split == split for clip in specs) for split in LRS3_SPLITS}
    assert counts["pretrain"] >= 1
    assert counts["trainval"] >= 2
    assert counts["test"] >= 1
    test_speakers = {clip.speaker for clip in specs if clip.split == "test"}
    training_speakers = {clip.speaker for clip in specs if clip.split != "test"}
    assert not test_speakers & training_speakers
    assert test_speakers | training_speakers <= set(range(speakers))
    if clips >= 20 * speakers:
        assert test_speakers | training_speakers == set(range(speakers))
    if clips % 20 == 0:
        assert counts == {"pretrain": clips * 12 // 20, "trainval": clips * 5 // 20, "test": clips * 3 // 20}


@given(index=st.integers(0, 500), speakers=st.integers(2, 40))
def test_training_speakers_take_turns(index: int, speakers: int) -> None:
    clips = [clip_spec(each, speakers) for each in range(index + 20)]
    counts = np.bincount([clip.speaker for clip in clips if clip.split != "test"])
    assert counts.max() - counts.min() <= 1


def test_speakers_differ() -> None:
    voices = [voice.speaker_voice(0, speaker) for speaker in range(8)]
    looks = [look.speaker_look(0, speaker) for speaker in range(8)]
    assert len(set(voices)) == 8
    assert len({tuple(one.skin) for one in looks}) == 8
    assert voices == [voice.speaker_voice(0, speaker) for speaker in range(8)]


# ------------------------------------------------------------------ speech
def test_grid_has_51_words() -> None:
    assert sum(len(words) for words in text.GRID) == 51
    assert len({word for words in text.GRID for word in words}) == 51


NAMES = (
    "eɪ,b iː,s iː,d iː,iː,ɛ f,dʒ iː,eɪ tʃ,aɪ,dʒ eɪ,k eɪ,ɛ l,ɛ m,ɛ n,oʊ,p iː,k j uː,"
    "ɑːɹ,ɛ s,t iː,j uː,v iː,ɛ k s,w aɪ,z iː"
)
LETTERS = dict(zip(text.GRID[3], NAMES.split(","), strict=True))


def test_letters_are_said_by_their_names() -> None:
    american = voice.Voice("en-us", 50, 50, 150)
    for letter, phones in LETTERS.items():
        speech = voice.say(["bin", "blue", "at", letter, "two", "now"], american)
        span = speech.words[3]
        middle = [phone for phone in speech.phones if span.start <= (phone.start + phone.end) / 2 < span.end]
        assert " ".join(phone.label for phone in middle) == phones, letter


@pytest.mark.parametrize("speaker", range(10))
def test_words_and_phones_tile_the_speech(speaker: int) -> None:
    rng = np.random.default_rng(speaker)
    speaker_voice = voice.speaker_voice(3, speaker)
    for _ in range(6):
        words = text.sentence(rng)
        speech = voice.say(words, speaker_voice)
        assert [word.label for word in speech.words] == words
        starts, ends = (np.array([getattr(phone, name) for phone in speech.phones]) for name in ("start", "end"))
        assert (ends > starts).all()
        assert (starts[1:] == ends[:-1]).all()
        assert speech.words[0].start == starts[0]
        assert speech.words[-1].end == ends[-1]
        assert all(first.end == second.start for first, second in itertools.pairwise(speech.words))
        assert abs(ends[-1] - len(speech.samples) / SAMPLE_RATE) < 0.01
        unknown = [phone.label for phone in speech.phones if not set(phone.label) & set(visemes.VISEMES)]
        assert not unknown


def test_phone_times_match_the_audio() -> None:
    speech = voice.say(["set", "blue", "at", "s", "six", "please"], voice.Voice("en-us", 40, 50, 150))

    def part(phone: voice.Segment, share: float) -> np.ndarray:
        start, end = phone.start * 16000, phone.end * 16000
        return speech.samples[int(start) : int(start + share * (end - start))].astype(float)

    level = np.abs(speech.samples.astype(float)).mean()
    for phone in speech.phones:
        audio = part(phone, 1.0)
        crossings = np.mean(np.diff(np.sign(audio)) != 0)
        if phone.label == "s":
            assert crossings > 0.3  # hiss
        elif phone.label in ("ɛ", "uː", "iː", "æ"):
            assert crossings < 0.25
            assert np.abs(audio).mean() > level
        elif phone.label == "t":
            assert np.abs(part(phone, 0.3)).mean() < 0.1 * level  # its closure is silent


def test_same_words_give_the_same_audio_after_other_words() -> None:
    speaker_voice = voice.Voice("en-us+m3", 50, 50, 150)
    first = voice.say(["bin", "now"], speaker_voice).samples
    voice.say(["place", "green", "soon"], voice.Voice("en-gb-scotland+f2", 60, 50, 160))
    assert np.array_equal(first, voice.say(["bin", "now"], speaker_voice).samples)


@pytest.mark.parametrize("variant", voice.HIGH_VARIANTS)
def test_a_breathy_voice_does_not_depend_on_the_time_of_day(variant: str) -> None:
    speaker_voice = voice.Voice(f"en-us+{variant}", 60, 50, 150)
    first = voice.say(["she"], speaker_voice).samples
    time.sleep(1.1)  # without a seed, espeak-ng draws its noise from the clock's seconds
    assert np.array_equal(first, voice.say(["she"], speaker_voice).samples)


# ------------------------------------------------------------------ faces
def shapes_of(label: str) -> visemes.MouthShapes:
    return visemes.mouth_shapes([voice.Segment(label, 0.0, 0.6)], 15)


def test_lips_are_shut_only_for_p_b_m() -> None:
    for shut in "pbm":
        assert shapes_of(shut).gap[7] == 0
    for label in ("iː", "uː", "f", "θ", "s", "k", "w"):
        assert shapes_of(label).gap[7] > 0
    # a closure of 40 ms between open vowels is visible in at least one frame, at any offset
    for offset in np.arange(0, 0.04, 0.005):
        edges = (0.0, 0.3 + offset, 0.34 + offset, 0.7)
        phones = [
            voice.Segment(label, *span)
            for label, span in zip(("ɑː", "b", "ɑː"), itertools.pairwise(edges), strict=True)
        ]
        gap = visemes.mouth_shapes(phones, 17).gap
        assert gap.min() == 0
        assert gap.max() > 0.7


def test_mouths_differ_between_visemes() -> None:
    def mouth_frame(label: str) -> np.ndarray:
        talking_face = face.Face(look.speaker_look(0, 1), np.random.default_rng(0))
        return next(itertools.islice(talking_face.frames(shapes_of(label)), 7, None))[128:200, 70:156].astype(float)

    frames_by_phone = {
        label: mouth_frame(label) for label in ("p", "b", "m", "f", "v", "θ", "s", "iː", "ɑː", "uː", "l", "ʃ")
    }

    def difference(first: str, second: str) -> float:
        return float(np.abs(frames_by_phone[first] - frames_by_phone[second]).mean())

    assert difference("p", "b") == difference("b", "m") == difference("f", "v") == 0
    for first, second in itertools.combinations(("p", "f", "θ", "s", "iː", "ɑː", "uː", "l", "ʃ"), 2):
        assert difference(first, second) > 1.0, (first, second)


def test_lips_rest_before_and_after_speech() -> None:
    shapes = visemes.mouth_shapes([voice.Segment("ɑː", 0.4, 0.6)], 30)
    assert (shapes.gap[:7] == 0).all()
    assert (shapes.gap[20:] == 0).all()


# ------------------------------------------------------------------ wrong input
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"clips": 0}, "clips must be at least 1"),
        ({"speakers": 1}, "speakers must be at least 2"),
        ({"seed": -1}, "seed must not be negative"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"text": "poems"}, "unknown text 'poems'; known: grid"),
    ],
)
def test_wrong_arguments_are_errors(tmp_path: Path, arguments: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        writer.make_corpus(tmp_path / "corpus", **{"clips": 4, **arguments})
    assert not (tmp_path / "corpus").exists()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot write to the output folder"):
        writer.make_corpus(tmp_path / "file" / "corpus", 4)


def test_a_folder_with_another_corpus_is_an_error(corpus: Path) -> None:
    with pytest.raises(ConfigError, match="made with seed 7, not 8"):
        writer.make_corpus(corpus, 4, seed=8)


def test_an_unknown_voice_is_an_error() -> None:
    with pytest.raises(ConfigError, match="does not know the voice 'en-xx'"):
        voice.say(["now"], voice.Voice("en-xx", 50, 50, 150))


def test_error_without_espeak_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    original_import = builtins.__import__

    def import_without_espeak(name: str, *arguments, **named):
        if name == "espeakng_loader":
            raise ImportError(name)
        return original_import(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", import_without_espeak)
    with pytest.raises(ConfigError, match=r"pip install 'avhubert\[synth\]'"):
        voice.say(["now"], voice.Voice("en-us", 50, 50, 150))


# ------------------------------------------------------------------ the package's own face detector
def test_detector_detects_the_faces_and_tracks_their_lips(corpus: Path) -> None:
    from avhubert.prepare.detectors.blazeface import BlazeFace
    from avhubert.prepare.tracking import track_faces

    model = BlazeFace()
    total, detected = 0, 0
    for index in range(4):  # every speaker once
        clip = clip_spec(index, 4)
        with av.open(str((corpus / clip.stem).with_suffix(".mp4"))) as container:
            images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        performance = perform(clip, CorpusSettings(7))
        gaps = performance.face.lip_gaps(performance.shapes)
        tracks, frames = track_faces(images, model)
        assert frames == len(images) == len(gaps)
        total += frames
        detected += sum(bool(model.detect(image)) for image in images)
        assert len(tracks[0].frames) >= 0.99 * frames
        tracked_gaps = np.array([tracks[0].frames[t].lip_gap for t in sorted(tracks[0].frames)])
        # per clip: the mesh measures the same gap differently between speakers (slopes 0.7 to 1.0)
        assert np.corrcoef(gaps[sorted(tracks[0].frames)], tracked_gaps)[0, 1] >= 0.9, clip
    assert detected >= 0.99 * total


# ------------------------------------------------------------------ sentences, and another language
@given(st.integers(0, 2**32 - 1))
def test_sentences_depend_on_the_seed_and_use_the_vocabulary(seed: int) -> None:
    words = text.sentence(np.random.default_rng(seed), "sentences")
    assert set(words) <= text.vocabulary()
    assert 3 <= len(words) <= 30
    assert words == text.sentence(np.random.default_rng(seed), "sentences")


def test_sentences_use_over_a_thousand_words() -> None:
    assert len(text.vocabulary()) >= 1000
    used_words = {word for seed in range(6000) for word in text.sentence(np.random.default_rng(seed), "sentences")}
    assert len(used_words) >= 1000
    assert all(word.isalpha() and word.islower() for word in used_words)
    assert (text.past("shake"), text.past("bake"), text.past("ask")) == ("shook", "baked", "asked")


@pytest.mark.parametrize(("kind", "language"), [("sentences", "en"), ("grid", "ru")])
def test_every_word_of_a_sentence_has_times_and_visemes(kind: str, language: str) -> None:
    for index in range(12):
        clip = clip_spec(index, 4)
        performance = perform(clip, CorpusSettings(3, kind, language))
        expected = text.sentence(np.random.default_rng([3, index, 0]), kind, language)
        assert [word.label for word in performance.words] == expected
        assert all(one.end <= other.start + 1e-9 for one, other in itertools.pairwise(performance.words))
        for phone in performance.phones:
            assert any(letter in visemes.VISEMES for letter in phone.label) or phone.label in "ʲː", phone
    assert performance.samples.any()


def test_a_corpus_of_sentences_and_one_in_russian(tmp_path: Path) -> None:
    writer.make_corpus(tmp_path / "s", 4, seed=1, text="sentences", workers=1)
    writer.make_corpus(tmp_path / "r", 4, seed=1, language="ru", workers=1)
    for name, alphabet in (("s", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"), ("r", "АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ")):
        transcripts = list((tmp_path / name).rglob("*.txt"))
        assert len(transcripts) == 4
        for path in transcripts:
            line = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("Text:  ")
            assert set(line) <= set(alphabet) | {" "}
    with pytest.raises(ConfigError, match="made with language ru, not en"):
        writer.make_corpus(tmp_path / "r", 4, seed=1)
    with pytest.raises(ConfigError, match=r"no text 'sentences' in 'ru', only grid"):
        writer.make_corpus(tmp_path / "x", 4, text="sentences", language="ru")
    with pytest.raises(ConfigError, match="unknown language 'xx'; known: en, ru"):
        writer.make_corpus(tmp_path / "x", 4, language="xx")
    assert not (tmp_path / "x").exists()


def test_a_corpus_without_a_language_setting_is_english(corpus: Path, tmp_path: Path) -> None:
    settings = json.loads((corpus / "corpus.json").read_text(encoding="utf-8"))
    del settings["language"]
    (tmp_path / "corpus.json").write_text(json.dumps(settings), encoding="utf-8")
    writer._write_settings(tmp_path, CorpusSettings(7, speakers=4))
    with pytest.raises(ConfigError, match="made with language en, not ru"):
        writer._write_settings(tmp_path, CorpusSettings(7, language="ru", speakers=4))
