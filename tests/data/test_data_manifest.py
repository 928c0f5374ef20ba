"""Manifests, labels, dictionaries, phones, noise lists: round trips, published selection, messages of errors."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avhubert.data.labels import (
    LabelInfo,
    is_described,
    load_labels,
    read_dictionary,
    read_label_info,
    read_labels,
    write_dictionary,
    write_label_info,
    write_labels,
)
from avhubert.data.manifest import Clip, read_manifest, select, write_manifest
from avhubert.data.noise import read_noise_list
from avhubert.data.transcripts import read_phones, read_transcripts, write_phones, write_transcripts
from avhubert.errors import DataError
from avhubert.files import sha256

pytestmark = pytest.mark.quick

INFO = LabelInfo(rate=25, clusters=3, source="mfcc", layer=None, centroids="ab" * 32)


def clip(name: str, frames: int = 50) -> Clip:
    return Clip(name, Path(f"/v/{name}.mp4"), Path(f"/a/{name}.wav"), frames, frames * 640)


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r\0/"), min_size=1, max_size=20
).filter(lambda name: name not in (".", ".."))


@settings(max_examples=100, deadline=None)
@given(st.lists(names, unique=True, max_size=5), st.data())
def test_manifest_round_trip(ids: list[str], data) -> None:
    count = st.integers(0, 10**9)
    clips = [
        Clip(
            name,
            Path("/root") / data.draw(names) / f"{name}.mp4",
            Path("/x") / name,
            data.draw(count),
            data.draw(count),
        )
        for name in ids
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.tsv"
        write_manifest(path, clips, "/root")
        assert read_manifest(path) == clips
        assert path.read_text(encoding="utf-8").startswith("/root\n")


def test_paths_below_the_root_are_written_relative_to_it(tmp_path) -> None:
    write_manifest(tmp_path / "a.tsv", [Clip("x", Path("/r/v/x.mp4"), Path("/elsewhere/x.wav"), 5, 3200)], "/r")
    assert (tmp_path / "a.tsv").read_text(encoding="utf-8") == "/r\nx\tv/x.mp4\t/elsewhere/x.wav\t5\t3200\n"


def test_speakers_are_an_optional_column(tmp_path) -> None:
    known = [replace(clip("x"), speaker="s1"), replace(clip("y"), speaker="")]
    write_manifest(tmp_path / "a.tsv", known, "/")
    lines = (tmp_path / "a.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == ["x\tv/x.mp4\ta/x.wav\t50\t32000\ts1", "y\tv/y.mp4\ta/y.wav\t50\t32000\t"]
    assert read_manifest(tmp_path / "a.tsv") == known
    # an editor that removes white space at the end of lines
    (tmp_path / "a.tsv").write_text("\n".join(line.rstrip() for line in lines), encoding="utf-8")
    assert read_manifest(tmp_path / "a.tsv") == known
    with pytest.raises(DataError, match="contains a tab"):
        write_manifest(tmp_path / "a.tsv", [replace(clip("x"), speaker="s\t1")], "/")


def test_manifest_with_windows_line_ends_is_read(tmp_path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"/\r\nx\t/v/x.mp4\t/a/x.wav\t50\t32000\r\n")
    assert read_manifest(tmp_path / "a.tsv") == [clip("x")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", r"a\.tsv is empty; its first line must be the root"),
        ("data\n", "the first line must be an absolute root folder, not 'data'"),
        ("/\nx\tv\ta\t5\n", r"a\.tsv, line 2: 4 fields instead of 5 or 6"),
        ("/\n\n", "line 2: 1 fields instead of 5 or 6"),
        ("/\nx\tv\ta\tfive\t3200\n", "the lengths 'five' and '3200' must be whole numbers"),
        ("/\nx\tv\ta\t5\t-1\n", "must be whole numbers"),
        ("/\nx\tv\ta\t5\t1\nx\tv\ta\t5\t1\n", "line 3: clip 'x' is listed twice"),
    ],
)
def test_invalid_manifest_is_an_error(tmp_path, content: str, sentence: str) -> None:
    (tmp_path / "a.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        read_manifest(tmp_path / "a.tsv")


def test_missing_or_unreadable_manifest_is_an_error(tmp_path) -> None:
    with pytest.raises(DataError, match=r"manifest .*a\.tsv is missing; give a data directory that"):
        read_manifest(tmp_path / "a.tsv")
    (tmp_path / "b.tsv").write_text("/\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"manifest .*a\.tsv is missing; prepare the data again"):
        read_manifest(tmp_path / "a.tsv")
    with pytest.raises(DataError, match=r"cannot read manifest .*: Is a directory"):
        read_manifest(tmp_path)
    (tmp_path / "latin.tsv").write_bytes("/é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.tsv is not UTF-8 text"):
        read_manifest(tmp_path / "latin.tsv")
    (tmp_path / "pointer.tsv").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"manifest .*pointer\.tsv is a Git LFS pointer, not the file itself"):
        read_manifest(tmp_path / "pointer.tsv")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_files_that_editors_saved_again(tmp_path: Path, encoding: str) -> None:
    clips = [clip("zoë"), clip("b")]
    write_manifest(tmp_path / "train.tsv", clips, tmp_path)
    write_transcripts(tmp_path / "train.wrd", ["café", "two"])
    rows = [np.array([0, 1, 1], np.int32), np.array([1], np.int32)]
    write_labels(tmp_path / "train.km", rows)
    write_dictionary(tmp_path / "dict.km.txt", {"0": 1, "1": 3})
    info = LabelInfo(25, 2, "mfcc", None, "c", {"train": sha256(tmp_path / "train.km")})
    before = read_manifest(tmp_path / "train.tsv")
    for name in ("train.tsv", "train.wrd", "train.km", "dict.km.txt"):
        text = (tmp_path / name).read_text(encoding="utf-8").replace("\n", "\r\n")
        (tmp_path / name).write_bytes(text.encode(encoding))
    assert read_manifest(tmp_path / "train.tsv") == before
    assert read_transcripts(tmp_path / "train.wrd", before) == ["café", "two"]
    assert [row.tolist() for row in read_labels(tmp_path / "train.km")] == [[0, 1, 1], [1]]
    assert read_dictionary(tmp_path / "dict.km.txt") == ["0", "1"]
    assert is_described(tmp_path / "train.km", info)
    (tmp_path / "train.km").write_text("0 1 1\n0\n", encoding="utf-8")
    assert not is_described(tmp_path / "train.km", info)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (clip("a\tb"), "contains a tab, which separates the fields"),
        (clip("a\nb"), "contains a line break"),
        (clip("a\rb"), "contains a line break"),
        (clip("a\0b"), "contains a NUL character"),
        (Clip("a", Path("/v/\t.mp4"), Path("/a"), 1, 1), "contains a tab"),
        (clip(""), "clip id '' is empty or used twice"),
        (clip("good"), "clip id 'good' is empty or used twice"),
        (clip("\udcff"), "not valid Unicode; rename that file"),
    ],
)
def test_invalid_clip_is_not_written(tmp_path, wrong: Clip, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        write_manifest(tmp_path / "a.tsv", [clip("good"), wrong], "/")
    assert list(tmp_path.iterdir()) == []


def test_golden_selection(golden) -> None:
    expected = json.loads(golden("manifest_filter.json").read_text(encoding="utf-8"))
    lengths = expected["frames_and_labels_at_25hz"]
    clips = [clip(f"u{i}", frames) for i, (frames, _) in enumerate(lengths)]
    labels = [np.zeros(count, np.int32) for _, count in lengths]
    selected, left_out = select(clips, expected["min_keep"], expected["max_keep"], [(labels, 25)])
    assert selected == expected["kept_indices"]
    assert [clips[i].video_frames for i in selected] == expected["sizes"]
    assert left_out == {
        "labels and frames differ by 0.1 s or more": ["u2", "u4"],
        "shorter than 5 frames": ["u5"],
        "longer than 500 frames": ["u8"],
    }
    assert len(selected) + sum(map(len, left_out.values())) == expected["tot"]


def test_selection_without_a_limit() -> None:
    assert select([clip("a", 10_000), clip("b", 1)], 1, None) == ([0, 1], {})


lines = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0\ufeff")), max_size=5)


@settings(max_examples=100, deadline=None)
@given(lines)
def test_transcript_round_trip(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.wrd"
        write_transcripts(path, texts)
        assert read_transcripts(path, [clip(str(i)) for i in range(len(texts))]) == texts


def test_invalid_transcripts_are_an_error(tmp_path) -> None:
    path = tmp_path / "train.wrd"
    with pytest.raises(DataError, match=r"transcripts .*train\.wrd is missing"):
        read_transcripts(path, [])
    write_transcripts(path, ["one"])
    with pytest.raises(DataError, match="has 1 lines but the manifest lists 2 clips; make the transcripts again"):
        read_transcripts(path, [clip("a"), clip("b")])
    with pytest.raises(DataError, match="contains a line break"):
        write_transcripts(path, ["one\ntwo"])
    assert path.read_text(encoding="utf-8") == "one\n"


def test_phones_round_trip_and_invalid_phones(tmp_path) -> None:
    rows = [["ɪ", "ɪ", "t"], [], ["sil"]]
    write_phones(tmp_path / "a.phn", rows)
    assert read_phones(tmp_path / "a.phn") == rows
    for wrong in ("", "a b", " a"):
        with pytest.raises(DataError, match="cannot be a phone"):
            write_phones(tmp_path / "a.phn", [[wrong]])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=8), max_size=4))
def test_label_round_trip(rows: list[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_labels(Path(folder) / "a.km", [np.array(row, np.int64) for row in rows])
        labels = read_labels(Path(folder) / "a.km")
    assert [row.tolist() for row in labels] == rows
    assert all(row.dtype == np.int32 for row in labels)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("1 x", "line 2: cluster ids must be whole numbers"),
        ("1.5", "line 2: cluster ids must be whole numbers"),
        ("99999999999", "line 2: cluster ids must be whole numbers"),
        ("3 -1", "line 2: cluster id -1 is negative"),
    ],
)
def test_invalid_labels_are_an_error(tmp_path, line: str, sentence: str) -> None:
    (tmp_path / "a.km").write_text(f"1 2\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        read_labels(tmp_path / "a.km")


def label_folder(folder: Path, rows: list[list[int]], info: LabelInfo = INFO, symbols: str = "012") -> Path:
    write_labels(folder / "train.km", [np.array(row) for row in rows])
    write_dictionary(folder / "dict.km.txt", dict.fromkeys(symbols, 1))
    write_label_info(folder, info)
    return folder


def test_classes_follow_the_dictionary(tmp_path) -> None:
    classes, info = load_labels(label_folder(tmp_path, [[0, 1, 2, 2]], symbols="201"), "train", [clip("a", 4)])
    assert [row.tolist() for row in classes] == [[5, 6, 4, 4]]
    assert classes[0].dtype == np.int32
    assert info == INFO


def test_golden_dictionary_and_labels(golden, tmp_path) -> None:
    media = golden("media")
    symbols = read_dictionary(golden("dict.km.txt"))
    info = LabelInfo(25, len(symbols), "mfcc", None, "")
    write_dictionary(tmp_path / "dict.km.txt", dict.fromkeys(symbols, 10000))
    assert (tmp_path / "dict.km.txt").read_bytes() == golden("dict.km.txt").read_bytes()
    (tmp_path / "test.km").write_bytes((media / "test.km").read_bytes())
    write_label_info(tmp_path, info)
    classes, _ = load_labels(tmp_path, "test", [clip(str(i), frames) for i, frames in enumerate((54, 46, 35))])
    items = np.load(golden("dataset_items.npz"))
    for index, row in enumerate(classes):
        np.testing.assert_array_equal(row, items[f"item{index}:label"])


def test_single_clip_with_drifting_labels_is_left_out_by_select(tmp_path) -> None:
    rows = [[0] * 50, [1] * 48, [2] * 40]
    clips = [clip(name) for name in "abc"]
    classes, info = load_labels(label_folder(tmp_path, rows), "train", clips)
    left_out = {"labels and frames differ by 0.1 s or more": ["c"]}
    assert select(clips, 1, None, [(classes, info.rate)]) == ([0, 1], left_out)
    assert select(clips, 1, None, [([[0] * 50] * 3, 25), (classes, info.rate)]) == ([0, 1], left_out)


def test_length_0_marks_a_missing_stream() -> None:
    both, audio = clip("both", 50), Clip("audio", Path("none"), Path("s.wav"), 0, 33_000)
    assert (both.frames, audio.frames) == (50, 52)
    assert (both.streams(["audio", "video"]), audio.streams(["audio", "video"])) == (["audio", "video"], ["audio"])
    assert select([both, audio], 52, 60) == ([1], {"shorter than 52 frames": ["both"]})
    assert select([both, audio], 1, None, streams=["video"]) == ([0], {"without video": ["audio"]})


@pytest.mark.parametrize(
    ("rows", "info", "symbols", "sentence"),
    [
        ([[0] * 50], INFO, "012", "has 1 lines but the manifest lists 2 clips; make the labels again"),
        ([[0] * 50, [3] * 50], INFO, "012", "clip 'b' has cluster 3 but labels.json says 3 clusters"),
        ([[0] * 198] * 2, INFO, "012", r"lasts 2.00 s, its 198 labels 7.92 s at the 25 per second of labels.json"),
        ([[0] * 50] * 2, INFO, "12", "has 2 symbols but labels.json says 3 clusters: it must list 0 to 2"),
        ([[0] * 50] * 2, INFO, "123", "it must list 0 to 2"),
        ([[0] * 50] * 2, INFO, "", r"dict\.km\.txt is empty"),
    ],
)
def test_labels_that_do_not_match_the_manifest_are_an_error(tmp_path, rows, info, symbols, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load_labels(label_folder(tmp_path, rows, info, symbols), "train", [clip("a"), clip("b")])


def test_label_info_round_trip(tmp_path) -> None:
    info = LabelInfo(25, 500, "runs/iter1", 9, "00")
    write_label_info(tmp_path, info)
    assert read_label_info(tmp_path) == info


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", "must contain the keys rate, clusters, source, layer, centroids"),
        ('{"rate": 25}', "must contain the keys rate, clusters"),
        ('{"rate": "25", "clusters": 3, "source": "m", "layer": null, "centroids": ""}', "rate='25' has the wrong"),
        ('{"rate": true, "clusters": 3, "source": "m", "layer": null, "centroids": ""}', "rate=True has the wrong"),
        ('{"rate": 0, "clusters": 3, "source": "m", "layer": null, "centroids": ""}', "rate=0 .* must be at least 1"),
        ("{", "is not valid JSON"),
    ],
)
def test_invalid_label_info_is_an_error(tmp_path, content: str, sentence: str) -> None:
    (tmp_path / "labels.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        read_label_info(tmp_path)


def test_label_info_that_was_changed_is_an_error(tmp_path) -> None:
    write_label_info(tmp_path, LabelInfo(25, 500, "runs/iter1", 9, "00"))
    file = tmp_path / "labels.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"rate": 25', '"rate": 24'), encoding="utf-8")
    with pytest.raises(DataError, match=r"labels\.json was changed or damaged after it was written"):
        read_label_info(tmp_path)


def test_missing_label_info_is_an_error(tmp_path) -> None:
    with pytest.raises(DataError, match=r"labels\.json is missing, so the rate"):
        read_label_info(tmp_path)


def test_dictionary_round_trip(tmp_path) -> None:
    write_dictionary(tmp_path / "dict.wrd.txt", {"▁the": 3, "a b": 1, "x": 0})
    assert read_dictionary(tmp_path / "dict.wrd.txt") == ["▁the", "a b", "x"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty, so a model cannot be trained with it"),
        ("a 1\nb\n", "line 2: 'b' is not a symbol, a space and a count"),
        ("a one\n", "is not a symbol, a space and a count"),
        ("a 1\na 2\n", "line 2: 'a' is listed twice"),
    ],
)
def test_invalid_dictionary_is_an_error(tmp_path, content: str, sentence: str) -> None:
    (tmp_path / "dict.km.txt").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        read_dictionary(tmp_path / "dict.km.txt")


def test_noise_list_is_read_from_a_file_or_folder(tmp_path) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).touch()
    (tmp_path / "train.tsv").write_text(f"{tmp_path}/a.wav\nb.wav\n", encoding="utf-8")
    expected = [tmp_path / "a.wav", tmp_path / "b.wav"]
    assert read_noise_list(tmp_path, "train") == expected
    assert read_noise_list(tmp_path / "train.tsv", "test") == expected


def test_invalid_noise_list_is_an_error(tmp_path) -> None:
    with pytest.raises(
        DataError, match=r"noise list .*test\.tsv is missing; give a folder or list that `avhubert noise` made"
    ):
        read_noise_list(tmp_path, "test")
    (tmp_path / "test.tsv").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="lists no files; make one with `avhubert noise`"):
        read_noise_list(tmp_path, "test")
    (tmp_path / "test.tsv").write_text("gone.wav\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"lists .*gone\.wav, which does not exist"):
        read_noise_list(tmp_path, "test")
