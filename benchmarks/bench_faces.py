"""How many faces the default detector finds in hard conditions, how many it invents, and where it puts the mouth.

    python benchmarks/bench_faces.py [--grid FOLDER] [--speakers 12] [--only dark]

Each picture is a video of one frame, as `avhubert prepare` sees it. A face is found if its mouth is within 0.2 of the
face's height of the true one. Faces elsewhere are false. With --grid, frames of the GRID corpus are used beside
synthetic speakers.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import numpy as np
import torch
from face_scenes import Scene, real_faces, scenes, synthetic_faces
from PIL import Image

from avhubert.prepare.detectors.interface import LandmarkModel
from avhubert.prepare.detectors.selection import default_model
from avhubert.prepare.tracking import track_faces

NEAR = 0.2  # of the face's height


def measure(pictures: list[Scene], model: LandmarkModel) -> tuple[float, float, float, float]:
    """Percent of faces found, false faces per picture, median error in % of the height, ms per picture."""
    found, false, errors, seconds = 0, 0, [], 0.0
    for scene in pictures:
        start = time.process_time()
        tracks, _ = track_faces([scene.image], model)
        seconds += time.process_time() - start
        offsets = [float(np.linalg.norm(track.frames[0].mouth - scene.mouth)) for track in tracks]
        right = [offset for offset in offsets if offset < NEAR * scene.height]
        found += bool(right)
        false += len(offsets) - bool(right)
        errors += [100 * min(right) / scene.height] if right else []
    count = len(pictures)
    return 100 * found / count, false / count, float(np.median(errors or [np.nan])), 1000 * seconds / count


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--grid", type=Path, help="folder with the speakers s1, s2, … of GRID")
    options.add_argument("--speakers", type=int, default=12, help="synthetic speakers")
    options.add_argument("--clips", type=int, default=2, help="clips of each speaker of GRID")
    options.add_argument("--show", type=Path, help="write one picture of each condition into this folder")
    options.add_argument("--only", default="", help="regular expression of the conditions")
    given = options.parse_args()
    torch.set_num_threads(1)
    groups = {"synthetic": synthetic_faces(given.speakers)}
    if given.grid:
        videos = [
            video
            for folder in sorted(given.grid.iterdir())
            for video in sorted(path for path in folder.iterdir() if path.suffix in (".mpg", ".mp4"))[: given.clips]
        ]
        groups["GRID"] = real_faces(videos)
    model = default_model()
    print("| faces | condition | found, % | false a picture | error of the mouth, % of the height | ms a picture |")
    print("|---|---|---|---|---|---|")
    for name, faces in groups.items():
        for condition, pictures in scenes(faces):
            if not re.search(given.only, condition):
                continue
            found, false, error, cost = measure(pictures, model)
            print(f"| {name} | {condition} | {found:.0f} | {false:.2f} | {error:.1f} | {cost:.0f} |", flush=True)
            if given.show:
                given.show.mkdir(parents=True, exist_ok=True)
                safe = "".join(letter if letter.isalnum() else "_" for letter in condition)
                Image.fromarray(pictures[0].image).save(given.show / f"{name}_{safe}.png")


if __name__ == "__main__":
    main()
