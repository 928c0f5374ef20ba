"""The baseline as commands, for measurements that begin with a cold process.

python -m baseline.command features CHECKPOINT MANIFEST OUT
python -m baseline.command decode CHECKPOINT MANIFEST OUT TOKENIZER BEAM
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from baseline.data import collate, item
from baseline.model import HubertModel, Seq2Seq, Sizes
from baseline.search import Settings, beam_search

MAX_FRAMES = 1000  # of a batch, padding included


def load(checkpoint: str) -> HubertModel | Seq2Seq:
    saved = torch.load(checkpoint, weights_only=False)
    sizes = json.loads(saved["sizes"])
    sizes["blocks"] = tuple(sizes["blocks"])
    made = Seq2Seq if "decoder.layer_norm.weight" in saved["model"] else HubertModel
    model = made(Sizes(**sizes))
    model.load_state_dict(saved["model"])
    return model.eval()


def read_manifest(path: str) -> list[tuple[str, Path, Path, int]]:
    """Id, video, audio and number of frames of every clip."""
    root, *lines = Path(path).read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    return [(row[0], Path(root, row[1]), Path(root, row[2]), int(row[3])) for row in rows]


def batches(lengths: list[int]) -> list[list[int]]:
    """The longest first, as many as fit into a batch with their padding."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if found and (len(found[-1]) + 1) * lengths[found[-1][0]] <= MAX_FRAMES:
            found[-1].append(index)
        else:
            found.append([index])
    return found


@torch.no_grad()
def features(checkpoint: str, manifest: str, out: str) -> None:
    model = load(checkpoint)
    encode = model.encode if isinstance(model, Seq2Seq) else model
    for name, video, audio, _ in read_manifest(manifest):
        sound, frames, _ = collate([item(video, audio)])
        np.save(Path(out, f"{name}.npy"), encode(sound, frames)[0].numpy())


@torch.no_grad()
def decode(checkpoint: str, manifest: str, out: str, tokenizer: str, beam: str) -> None:
    import jiwer
    import sentencepiece

    model = load(checkpoint)
    assert isinstance(model, Seq2Seq)
    pieces = sentencepiece.SentencePieceProcessor(model_file=tokenizer)
    clips = read_manifest(manifest)
    references = Path(manifest).with_suffix(".wrd").read_text(encoding="utf-8").splitlines()
    texts = [""] * len(clips)
    for batch in batches([clip[3] for clip in clips]):
        sound, frames, padding = collate([item(*clips[index][1:3]) for index in batch])
        found = beam_search(model, model.encode(sound, frames, padding), padding, Settings(int(beam)))
        for index, hypotheses in zip(batch, found, strict=True):
            # our pieces start after the four special symbols
            ids = [token for token in hypotheses[0].tokens if token > 3]
            texts[index] = "".join(pieces.id_to_piece(token) for token in ids).replace("\u2581", " ").strip()
    Path(out, "texts.json").write_text(json.dumps(texts), encoding="utf-8", newline="\n")
    print(f"WER {100 * jiwer.wer(references, texts):.1f} %")


if __name__ == "__main__":
    {"features": features, "decode": decode}[sys.argv[1]](*sys.argv[2:])
