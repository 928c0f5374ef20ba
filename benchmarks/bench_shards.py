"""Clips read per second: from the shards of `avhubert shards` against the mp4 and wav files of the same data directory.

    python benchmarks/bench_shards.py DATA [--runs 5]

Both are read in turn in this process, all clips of the training split in the order of the manifest; medians. The files
are in the system's cache: a network file system, where shards matter most, only widens the distance.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from record import record

from avhubert.data.manifest import Clip, read_manifest
from avhubert.data.shards import clip_frames, clip_samples, make_shards


def seconds(clips: list[Clip]) -> float:
    start = time.perf_counter()
    for clip in clips:
        clip_frames(clip.video)
        clip_samples(clip.audio)
    return time.perf_counter() - start


def size(paths: set[Path]) -> float:
    return sum(path.stat().st_size for path in paths) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write the figures into docs/results.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_shards(given.data, folder)
        files, shards = (read_manifest(root / "train.tsv") for root in (given.data, Path(folder)))
        times: dict[str, list[float]] = {"files": [], "shards": []}
        for _ in range(given.runs):
            times["files"].append(seconds(files))
            times["shards"].append(seconds(shards))
        median = {name: statistics.median(values) for name, values in times.items()}
        for name, clips in (("files", files), ("shards", shards)):
            print(f"{name}: {len(clips) / median[name]:.0f} clips/s")
        speed = median["files"] / median["shards"]
        print(f"shards are read {speed:.1f} × as fast as files")
        ours = size({clip.video for clip in files} | {clip.audio for clip in files})
        room = size({clip.video.parent for clip in shards}) / ours
        print(f"and take {room:.1f} × the space")
        if given.record:
            record("shards", [["clips read per second", round(speed, 1)], ["size on disk", round(room, 1)]])


if __name__ == "__main__":
    main()
