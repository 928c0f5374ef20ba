"""Live captions of several faces: how often the speaker is right.

    python benchmarks/bench_live_speaker.py DATA [--faces N …] [--turns N] [--movers]

DATA is that of bench_live.py. N faces are side by side and speak in turn; who does not speak is still, or with
--movers moves the lips to another sentence without a voice. Printed: the share of the frames within words for which the
final text names the right person, and that of frames that belong to no final text.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from pathlib import Path

import numpy as np
import torch
from bench_live import Recording, joined_clips

from avhubert import LiveRecognizer
from avhubert.constants import FRAME_RATE, SAMPLES_PER_FRAME
from avhubert.live.records import FINAL, AudioBlock, VideoFrame


def turns(clips: list[Recording], faces: int, count: int, movers: bool) -> tuple[Recording, np.ndarray]:
    """The faces side by side, and who speaks in each frame: 0, 1, …; -1 outside of words."""
    people = [clips[face::faces] for face in range(faces)]
    images, samples, speakers = [], [], []
    order = random.Random(0)
    who = 0
    for turn in range(count):
        who = order.choice([face for face in range(faces) if face != who])
        said = people[who][turn % len(people[who])]
        length = len(said.images)
        columns = []
        for face in range(faces):
            other = people[face][(turn + 1) % len(people[face])].images
            silent = (
                np.resize(other, (length, *other.shape[1:]))
                if movers
                else np.repeat(people[face][0].images[:1], length, 0)
            )
            columns.append(said.images if face == who else silent)
        images.append(np.concatenate(columns, 2))
        samples.append(said.samples)
        speaking = np.full(length, -1)
        for start, end in zip(
            [said.words[0][1] - 0.2, *(end for _, end in said.words)], [e for _, e in said.words], strict=False
        ):
            speaking[round(start * FRAME_RATE) : round(end * FRAME_RATE)] = who
        speakers.append(speaking)
    return Recording(np.concatenate(images), np.concatenate(samples), []), np.concatenate(speakers)


def measure(recording: Recording, speakers: np.ndarray, faces: int) -> tuple[float, float]:
    recognizer = LiveRecognizer("builtin", clock=time.process_time)
    width = recording.images.shape[2] / faces
    named = np.full(len(speakers), -1)
    positions: dict[int, int] = {}
    steps = itertools.chain(range(len(recording.images)), [None])
    for k in steps:
        if k is None:
            events = recognizer.finish()
        else:
            block = recording.samples[SAMPLES_PER_FRAME * k : SAMPLES_PER_FRAME * (k + 1)]
            events = recognizer.push(
                [VideoFrame(recording.images[k], k / FRAME_RATE)], AudioBlock(block, k / FRAME_RATE)
            )
        positions |= {person.number: int(person.box[::2].mean() // width) for person in recognizer.people}
        for event in events:
            if event.kind == FINAL and event.person is not None:
                named[round(event.start * FRAME_RATE) : round(event.end * FRAME_RATE)] = positions[event.person]
    voiced = speakers >= 0
    read = voiced & (named >= 0)
    return float((named == speakers)[read].mean()), float(1 - read.sum() / voiced.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--faces", type=int, action="append")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--movers", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = joined_clips(options.data)
    for faces in options.faces or [2, 3, 4]:
        right, missing = measure(*turns(clips, faces, options.turns, options.movers), faces)
        print(
            f"{faces} faces: speaker right in {100 * right:.1f} % of frames, {100 * missing:.1f} % not read", flush=True
        )


if __name__ == "__main__":
    main()
