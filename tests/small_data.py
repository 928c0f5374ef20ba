"""A small data directory: a few short clips in which every "phone" has its tone and mouth opening."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avhubert.data.audio import write_wav
from avhubert.data.manifest import Clip, write_manifest
from avhubert.data.tokenizer import train_tokenizer
from avhubert.data.transcripts import write_phones, write_transcripts
from avhubert.data.video import write_video


def make_data(folder: Path) -> Path:
    """Write a data directory of 12 clips of 1 to 1.6 s to `folder`, which exists; the same bytes each time."""
    rng = np.random.default_rng(5)
    words = {"ba": "a", "mo": "o", "si": "i", "lu": "u"}
    frequency = {"a": 700, "o": 450, "i": 2300, "u": 300, "sil": 0}
    opening = {"a": 14, "o": 9, "i": 4, "u": 6, "sil": 0}
    texts = []
    for split, count in (("train", 8), ("valid", 2), ("test", 2)):
        clips, said, rows = [], [], []
        for number in range(count):
            chosen = rng.choice(list(words), 3)
            phones = [phone for word in chosen for phone in [words[word]] * int(rng.integers(6, 11))]
            phones = ["sil"] * 4 + phones + ["sil"] * 4
            time = np.arange(len(phones) * 640) / 16_000
            tone = np.sin(2 * np.pi * np.repeat([frequency[phone] for phone in phones], 640) * time)
            samples = (6000 * tone + rng.normal(0, 60, len(time))).astype(np.int16)
            frames = np.full((len(phones), 96, 96), 150, np.uint8)
            for picture, phone in zip(frames, phones, strict=True):
                picture[48 - opening[phone] : 50 + opening[phone], 25:71] = 40
            name = f"{split}{number}"
            write_video(folder / f"{name}.mp4", list(frames))
            write_wav(folder / f"{name}.wav", samples)
            clips.append(Clip(name, folder / f"{name}.mp4", folder / f"{name}.wav", len(phones), len(samples)))
            said.append(" ".join(chosen))
            rows.append(phones)
        write_manifest(folder / f"{split}.tsv", clips, folder)
        write_transcripts(folder / f"{split}.wrd", said)
        write_phones(folder / f"{split}.phn", rows)
        texts += said if split == "train" else []
    (folder / "tokenizer.model").write_bytes(train_tokenizer(texts, 40).serialized)
    return folder
