"""How often the active speaker of two faces is the right one.

    python benchmarks/bench_speaker.py GRID [--clips 10] [--pairs 100] [--videos 20]

Two people are seen and one is heard. The faces are tracked once in each clip; a pair is two of these tracks with the
audio of one of them, as in a video with both side by side. Cases: two people who talk; a listener whose landmarks only
have noise; a chewer, who opens the mouth once or twice a second; a talker whose motion is of another time. Where the
audio selects nobody, half a point is counted.

With --videos, the two are joined side by side in a video, and everything from its decoding on is as in `avhubert
prepare`: pairs of GRID and of synthetic speakers, and a synthetic speaker beside one who chews, and one who nods with a
closed mouth. A clip is right if the middle of the crop is on the side of the speaker in more than half of its frames.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from avhubert.constants import FRAME_RATE, SAMPLES_PER_FRAME
from avhubert.corpora.synthetic.face import Face
from avhubert.corpora.synthetic.look import speaker_look
from avhubert.corpora.synthetic.performance import CorpusSettings, perform
from avhubert.corpora.synthetic.pose import HeadMotion
from avhubert.corpora.synthetic.schedule import clip_spec
from avhubert.corpora.synthetic.visemes import mouth_shapes
from avhubert.data.audio import read_audio
from avhubert.data.media import MediaPart
from avhubert.data.video import read_frames, write_video
from avhubert.prepare.detectors.interface import Landmarks
from avhubert.prepare.detectors.selection import default_model
from avhubert.prepare.mouth import find_mouths
from avhubert.prepare.speaker import active_speaker
from avhubert.prepare.tracking import Track, track_faces

SHORT = 2 * FRAME_RATE  # frames
SPEAKERS = 10  # synthetic


class Talk(NamedTuple):
    """Who speaks, the lip gap [T] in pixels, the height of the face in pixels, int16 audio [640 T]."""

    speaker: str
    gap: np.ndarray
    height: float
    audio: np.ndarray

    def part(self, start: int, end: int) -> Talk:
        audio = self.audio[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
        return self._replace(gap=self.gap[start:end], audio=audio)


def real_talks(grid: Path, clips: int) -> list[Talk]:
    """The first clips of each speaker in which one face is found in every frame."""
    model, talks = default_model(), []
    for folder in sorted(path for path in grid.iterdir() if path.is_dir()):
        for video in sorted(path for path in folder.iterdir() if path.suffix in (".mpg", ".mp4"))[:clips]:
            tracks, count = track_faces(read_frames(video), model)
            if len(tracks) == 1 and len(tracks[0].frames) == count:
                gap = np.array([tracks[0].frames[index].lip_gap for index in range(count)])
                box = tracks[0].frames[0].box
                talks.append(Talk(folder.name, gap, float(box[3] - box[1]), read_audio(video)))
    return talks


def synthetic_talks(clips: int) -> list[Talk]:
    """Drawn lip gaps with the noise of landmarks."""
    talks = []
    for index in range(clips):
        clip = clip_spec(index, SPEAKERS)
        performance = perform(clip, CorpusSettings(3, speakers=SPEAKERS))
        gap = performance.face.lip_gaps(performance.shapes)
        noise = np.random.default_rng(index).normal(0, 0.25, len(gap))
        talks.append(Talk(str(clip.speaker), np.abs(gap + noise), 140.0, performance.samples))
    return talks


def pairs(talks: list[Talk], name: str, count: int, rng: np.random.Generator) -> Iterator[tuple[str, Talk, Talk]]:
    """Name of the case, the speaker, the other face."""
    for _ in range(count):
        first = talks[rng.integers(len(talks))]
        others = [talk for talk in talks if talk.speaker != first.speaker]
        second = others[rng.integers(len(others))]
        length = min(len(first.gap), len(second.gap), len(first.audio) // SAMPLES_PER_FRAME)
        middle = max(0, (length - SHORT) // 2)
        speaker, other = first.part(0, length), second.part(0, length)
        still = np.full(length, second.gap[:8].mean()) + rng.normal(0, 0.01 * second.height, length)
        rate = rng.uniform(1, 2) + 0.3 * rng.normal(size=length)
        chewing = np.abs(2 * second.gap.std() * np.sin(np.cumsum(2 * np.pi * rate / FRAME_RATE)))
        shifted = np.roll(other.gap, int(rng.integers(length // 4, length // 2)))
        for case, gap in (("talks", other.gap), ("listens", still), ("chews", chewing), ("talks later", shifted)):
            face = other._replace(gap=gap)
            yield f"{name}, the other {case}", speaker, face
            yield f"{name}, the other {case}, ≤ 2 s", *(x.part(middle, middle + SHORT) for x in (speaker, face))


def track_of(talk: Talk) -> Track:
    box = np.array([0, 0, 0.8 * talk.height, talk.height], np.float32)
    nowhere = np.zeros((5, 2), np.float32)
    return Track({i: Landmarks(nowhere, nowhere[0], float(gap), box) for i, gap in enumerate(talk.gap)})


class _Nodding(Face):
    """A face that nods once or twice a second."""

    def head_motion(self, total: int) -> HeadMotion:
        motion = super().head_motion(total)
        rate = self._rng.uniform(1, 2)
        return replace(motion, shift_y=motion.shift_y + 7 * np.sin(2 * np.pi * rate * np.arange(total) / FRAME_RATE))


def listener(kind: str, index: int, total: int) -> np.ndarray:
    """Frames uint8 [total, 224, 224, 3] of a synthetic person who `chews` or `nods`."""
    rng = np.random.default_rng([index, 9])
    shapes = mouth_shapes((), total)
    if kind == "chews":
        rate = rng.uniform(1, 2) + 0.3 * rng.normal(size=total)
        shapes = replace(shapes, gap=0.5 * np.abs(np.sin(np.cumsum(np.pi * rate / FRAME_RATE))))
    face = (_Nodding if kind == "nods" else Face)(speaker_look(4, index), rng)
    return np.stack(list(face.frames(shapes)))


Recording = tuple[str, np.ndarray, np.ndarray]  # speaker, frames [T, H, W, 3], int16 audio [640 T]


def recordings(grid: Path, clips: int) -> tuple[list[Recording], list[Recording]]:
    """Clips of GRID of one size, and synthetic ones, each with audio."""
    real: list[Recording] = []
    for folder in sorted(path for path in grid.iterdir() if path.is_dir()):
        for video in sorted(path for path in folder.iterdir() if path.suffix in (".mpg", ".mp4"))[:clips]:
            frames = np.stack(list(read_frames(video)))
            if frames.shape[1:3] == (288, 360):
                real.append((folder.name, frames, read_audio(video)))
    synthetic: list[Recording] = []
    for index in range(2 * clips):
        clip = clip_spec(index, SPEAKERS)
        performance = perform(clip, CorpusSettings(3, speakers=SPEAKERS))
        synthetic.append((str(clip.speaker), np.stack(list(performance.frames())), performance.samples))
    return real, synthetic


def measure_videos(grid: Path, clips: int, count: int) -> Iterator[tuple[str, float, float]]:
    """Name of the case, percent of clips and of frames that are right."""
    rng = np.random.default_rng(1)
    real, synthetic = recordings(grid, clips)
    cases = [("GRID", "talks", real), *(("synthetic", kind, synthetic) for kind in ("talks", "chews", "nods"))]
    for name, kind, known in cases:
        rights = []
        for index in range(count):
            speaker, frames, audio = known[rng.integers(len(known))]
            if kind == "talks":
                others = [other for other in known if other[0] != speaker]
                beside = others[rng.integers(len(others))][1]
            else:
                beside = listener(kind, index, len(frames))
            rights.append(right_frames(frames, beside, audio, index % 2))
        shares = np.array(rights)
        yield f"{name}, the other {kind}", 100 * float((shares > 0.5).mean()), 100 * float(shares.mean())


def right_frames(speaker: np.ndarray, other: np.ndarray, audio: np.ndarray, side: int) -> float:
    """Share of the frames of a video of two in which the crop is on the side (0: left) of the speaker."""
    length = min(len(speaker), len(other), len(audio) // SAMPLES_PER_FRAME)
    faces = [speaker[:length], other[:length]]
    audio = audio[: length * SAMPLES_PER_FRAME]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "two.mp4"
        write_video(path, np.concatenate(faces[::-1] if side else faces, 2), audio=audio)
        mouth = find_mouths(MediaPart(path), audio=audio)[0]
    on_the_right = mouth.corners().mean(1)[:, 0] > speaker.shape[2]
    return float((on_the_right == bool(side)).mean())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("grid", type=Path, help="folder with the speakers s1, s2, … of GRID")
    options.add_argument("--clips", type=int, default=10, help="of each speaker of GRID")
    options.add_argument("--pairs", type=int, default=100, help="of each case")
    options.add_argument("--videos", type=int, default=0, help="of each case")
    given = options.parse_args()
    torch.set_num_threads(1)
    if given.videos:
        print("| video | clips right, % | frames right, % |\n|---|---|---|")
        for case, clips, frames in measure_videos(given.grid, given.clips, given.videos):
            print(f"| {case} | {clips:.0f} | {frames:.0f} |", flush=True)
        return
    rng = np.random.default_rng(0)
    points: dict[str, list[float]] = {}
    for name, talks in (("GRID", real_talks(given.grid, given.clips)), ("synthetic", synthetic_talks(40))):
        for case, speaker, other in pairs(talks, name, given.pairs, rng):
            tracks = [track_of(other), track_of(speaker)]
            chosen = active_speaker(tracks, speaker.audio, len(speaker.gap))
            points.setdefault(case, []).append(float(chosen.track is tracks[1]) if chosen.by_audio else 0.5)
    print("| case | right, % |\n|---|---|")
    for case, values in points.items():
        print(f"| {case} | {100 * np.mean(values):.0f} |")


if __name__ == "__main__":
    main()
