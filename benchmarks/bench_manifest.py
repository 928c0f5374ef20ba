"""A manifest of 10⁵ lines: CPU seconds to read, check and filter it, against only splitting its lines at the tabs.

    python benchmarks/bench_manifest.py [--lines 100000] [--runs 5]

The two run in turn in this process; medians. Goal: under 2 s.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from record import record

from avhubert.data.manifest import Clip, read_manifest, select, write_manifest


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--lines", type=int, default=100_000)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--record", action="store_true", help="write the figures into docs/results.json")
    size = options.parse_args()
    frames = np.random.default_rng(0).integers(5, 700, size.lines).tolist()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = [f"pretrain/{i // 100:05d}/{i % 100:05d}" for i in range(size.lines)]
        clips = [
            Clip(name, root / "video" / f"{name}.mp4", root / "audio" / f"{name}.wav", count, 640 * count)
            for name, count in zip(names, frames, strict=True)
        ]
        write_manifest(root / "train.tsv", clips, root)
        ours, plain = [], []
        for _ in range(size.runs):
            start = time.process_time()
            kept, _ = select(read_manifest(root / "train.tsv"), 10, 500)
            ours.append(time.process_time() - start)
            start = time.process_time()
            rows = [line.split("\t") for line in (root / "train.tsv").read_text(encoding="utf-8").splitlines()]
            plain.append(time.process_time() - start)
        assert len(rows) == size.lines + 1
    seconds, base = statistics.median(ours), statistics.median(plain)
    print(f"{size.lines} lines, {len(kept)} kept: {seconds:.2f} s; split at tabs {base:.2f} s; {seconds / base:.1f} ×")
    if size.record:
        record("manifest", [["ours", round(seconds, 2)]])


if __name__ == "__main__":
    main()
