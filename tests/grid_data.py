"""A small GRID corpus of synthetic faces, in the folders and the codecs of the real one."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import av

from avhubert.constants import FRAME_RATE
from avhubert.corpora import grid, lrs3
from avhubert.corpora.synthetic.writer import make_corpus


def code_of(text: str) -> str:
    """The file name of a sentence: 'bbaf2n' for 'bin blue at f two now'."""
    words = text.split()
    return "".join("z" if word == "zero" else _digit(word) or word[0] for word in words)


def _digit(word: str) -> str:
    digits = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    return str(digits.index(word) + 1) if word in digits else ""


def make_grid(dst: Path, clips: int, work: Path, seed: int = 3) -> list[str]:
    """Write `clips` sentences of the speakers s1 and s3 as `sN/*.mpg` and `alignments/sN/*.align`.

    Returns:
        The ids, such as s1/bbaf2n.
    """
    make_corpus(work, clips, speakers=4, seed=seed)
    ids = []
    for number, video in enumerate(sorted(work.rglob("*.mp4"))):
        text, words = lrs3.read_transcript(video.with_suffix(".txt"))
        name = f"s{(1, 3)[number % 2]}/{code_of(text)}"
        assert grid.sentence(name.rpartition("/")[2]) == text
        lines = [f"{round(25_000 * word.start)} {round(25_000 * word.end)} {word.text}" for word in words]
        alignment = dst / "alignments" / f"{name}.align"
        alignment.parent.mkdir(parents=True, exist_ok=True)
        alignment.write_text("\n".join(["0 " + lines[0].split()[0] + " sil", *lines, ""]), encoding="utf-8")
        path = dst / f"{name}.mpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        to_mpeg(video, path)
        ids.append(name)
    shutil.rmtree(work)
    return sorted(ids)


def to_mpeg(video: Path, path: Path, frames: int | None = None) -> None:
    """Write the first `frames` frames (None: all) of a video, and their audio, as MPEG-1 with MP2 audio."""
    with av.open(str(video)) as source, av.open(str(path), "w") as out:
        picture = out.add_stream("mpeg1video", rate=FRAME_RATE)
        picture.pix_fmt, picture.bit_rate = "yuv420p", 1_500_000
        sound = out.add_stream("mp2", rate=44_100)
        for index, frame in enumerate(source.decode(video=0)):
            if index == 0:
                picture.width, picture.height = frame.width, frame.height
            if index == frames:
                break
            image = av.VideoFrame.from_ndarray(frame.to_ndarray(format="yuv420p"), format="yuv420p")
            image.pts, image.time_base = index, Fraction(1, FRAME_RATE)
            out.mux(picture.encode(image))
        out.mux(picture.encode())
        source.seek(0)
        resampler = av.AudioResampler("s16", "stereo", 44_100)
        first = None  # the clock of a program stream does not begin at 0
        for chunk in source.decode(audio=0):
            first = chunk.time if first is None else first
            if frames is not None and chunk.time - first >= frames / FRAME_RATE:
                break
            for block in resampler.resample(chunk):
                block.pts = None
                out.mux(sound.encode(block))
        out.mux(sound.encode())
