"""From mp4 to mouth clip on one core: times real time, against only decoding the video; and a worker's memory.

    python benchmarks/bench_prepare.py [--size 224] [--seconds 20] [--runs 3] [--hours 0]

A photographed face moves over a picture of SIZE × SIZE pixels. Both run in turn in this process; medians. Memory is
the peak of a process of its own that prepares the clip, and with --hours also of one that cuts a piece out of the end
of a video that long (goals: 8 × real time, 600 MB).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import skimage.data
import torch
from record import record

from avhubert.corpora.cuts import cut
from avhubert.corpora.sources import SourceClip
from avhubert.data.video import read_frames, write_video
from avhubert.prepare.clip import prepare_clip


def pictures(size: int, count: int) -> Iterator[np.ndarray]:
    """RGB uint8 [size, size, 3]: the astronaut's head, shifted to and fro."""
    rows = np.linspace(20, 243, size).astype(int)
    head = skimage.data.astronaut()[rows][:, np.linspace(110, 333, size).astype(int)]
    for index in range(count):
        yield np.roll(head, round(6 * np.sin(index / 8)), 1)


def one(source: Path, scratch: Path, start: float = 0.0, end: float | None = None) -> None:
    torch.set_num_threads(1)
    result = prepare_clip(SourceClip("clip", source, "", start, end), scratch)
    assert result.rejection is None, result.rejection


def peak(source: Path, scratch: Path, long: bool = False) -> float:
    """Megabytes at most in this process after preparing the video, or cutting it and preparing its last piece."""
    one(source, scratch, *(cut(source)[-2] if long else ()))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=int, default=224)
    options.add_argument("--seconds", type=int, default=20)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--hours", type=float, default=0.0)
    options.add_argument("--record", action="store_true", help="write the figures into docs/results.json")
    given = options.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)

        def made(name: str, seconds: int) -> Path:
            sound = rng.integers(-3000, 3000, 16_000 * seconds, np.int16)
            write_video(root / name, pictures(given.size, 25 * seconds), audio=sound)
            return root / name

        clip = made("clip.mp4", given.seconds)
        one(clip, root)  # loads the models
        whole, decoding = [], []
        for _ in range(given.runs):
            start = time.process_time()
            one(clip, root)
            whole.append(time.process_time() - start)
            start = time.process_time()
            for _ in read_frames(clip):
                pass
            decoding.append(time.process_time() - start)
        seconds, base = statistics.median(whole), statistics.median(decoding)
        print(
            f"{given.size} × {given.size}, {given.seconds} s: {given.seconds / seconds:.1f} × real time per core; "
            f"{seconds / base:.1f} × the time of decoding alone",
            flush=True,
        )
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            memory = pool.submit(peak, clip, root).result()
            print(f"worker: {memory:.0f} MB", flush=True)
            if given.hours:
                long = made("long.mp4", round(3600 * given.hours))
                print(f"worker, {given.hours:g} h: {pool.submit(peak, long, root, True).result():.0f} MB")
    if given.record:
        what = f"{given.size}×{given.size}, {given.seconds} s"
        record("prepare-speed", [[what, round(given.seconds / seconds, 1), round(memory)]])


if __name__ == "__main__":
    main()
