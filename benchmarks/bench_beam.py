"""Beam search against decoders without its caches, against greedy, and its memory.

    OMP_NUM_THREADS=2 python benchmarks/bench_beam.py [--frames 100] [--tokens 25] [--rounds 3]

Base sizes (width 768, 6 layers, 4 heads, 1000 symbols), random weights, every text of the same length. In one process,
rounds of all decoders one after the other; the median of each and its ratio to ours:

- "no cache": every step decodes all tokens so far anew, for each beam with its own copy of the encoded frames;
- "copied keys": tokens' keys and values are cached, the encoder's are stored once per beam;
- "moved keys": these, too, are moved when beams are reordered, as with incremental state that treats all alike;
- beam 10 against greedy, 8 utterances: search alone, and with encoding 8 silent clips of lips by a Base encoder.

Memory: the peak resident size of a child process with Large sizes (width 1024, 9 layers), beam 40 and 750 frames.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from record import Cell, record
from torch import Tensor

from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.decode.beam_search import beam_search
from avhubert.model.decoder import AttentionDecoder, sinusoid
from avhubert.model.encoder import AVHubert
from avhubert.model.recognizer import Recognizer

LONGER = (250, 750)  # frames: 10 s, 30 s


class NoCache:
    """All tokens so far go through the decoder at every step."""

    def __init__(self, decoder: AttentionDecoder) -> None:
        self.decoder = decoder

    def start(self, encoded: Tensor, padding_mask: Tensor | None, beams: int) -> NoCache:
        self.beams = beams
        self.encoded = encoded.repeat_interleave(beams, 0)
        self.tokens = torch.empty(len(self.encoded), 0, dtype=torch.long)
        return self

    def step(self, tokens: Tensor, cache: NoCache) -> Tensor:
        self.tokens = torch.cat([self.tokens, tokens.reshape(-1, 1)], 1)
        return self.decoder(self.tokens, self.encoded)[:, -1].view(*tokens.shape, -1)

    def reorder(self, rows: Tensor) -> None:
        self.tokens = self.tokens[rows]

    def keep(self, utterances: Tensor) -> None:
        rows = (utterances[:, None] * self.beams + torch.arange(self.beams)).flatten()
        self.tokens, self.encoded = self.tokens[rows], self.encoded[rows]


class CopiedKeys:
    """Keys and values are cached; those of the frames lie there once per beam (`moved`: and move with it)."""

    def __init__(self, decoder: AttentionDecoder, moved: bool) -> None:
        self.decoder = decoder
        self.moved = moved

    def start(self, encoded: Tensor, padding_mask: Tensor | None, beams: int) -> CopiedKeys:
        self.own: list[tuple[Tensor, Tensor] | None] = [None] * len(self.decoder.layers)
        self.other = [
            tuple(x.repeat_interleave(beams, 0) for x in layer.cross_attention.keys_values(encoded))
            for layer in self.decoder.layers
        ]
        self.length, self.beams = 0, beams
        return self

    def step(self, tokens: Tensor, cache: CopiedKeys) -> Tensor:
        decoder = self.decoder
        x = decoder.embedding(tokens.reshape(-1, 1)) + sinusoid(torch.tensor([self.length + 2]), decoder.dim)
        for i, layer in enumerate(decoder.layers):
            own, other = layer.self_attention, layer.cross_attention
            y = layer.self_attention_norm(x)
            new = own.keys_values(y)
            held = self.own[i]
            self.own[i] = new if held is None else tuple(torch.cat(pair, 2) for pair in zip(held, new, strict=True))
            x = x + own.attend(own.queries(y), *self.own[i])
            x = x + other.attend(other.queries(layer.cross_attention_norm(x)), *self.other[i])
            x = layer.feed_forward(x)
        self.length += 1
        return (decoder.norm(x) @ decoder.embedding.weight.T).view(*tokens.shape, -1)

    def _take(self, rows: Tensor, all_of_it: bool) -> None:
        self.own = [None if pair is None else tuple(x[rows] for x in pair) for pair in self.own]
        if all_of_it:
            self.other = [tuple(x[rows] for x in pair) for pair in self.other]

    def reorder(self, rows: Tensor) -> None:
        self._take(rows, self.moved)

    def keep(self, utterances: Tensor) -> None:
        self._take((utterances[:, None] * self.beams + torch.arange(self.beams)).flatten(), True)


class Dressed:
    """A recognizer with another decoder, as far as the search looks at it."""

    def __init__(self, recognizer: Recognizer, decoder: NoCache | CopiedKeys | AttentionDecoder) -> None:
        self.decoder, self.ctc, self.tokenizer = decoder, recognizer.ctc, None


def recognizer(dim: int, layers: int, heads: int, symbols: int = 1000) -> Recognizer:
    """One whose decoder has these sizes; its encoder is as small as can be."""
    torch.manual_seed(0)
    model = ModelConfig(
        visual_width=8, visual_blocks=[1, 1, 1, 1], encoder_layers=1, encoder_embed_dim=dim, encoder_ffn_embed_dim=8,
        encoder_attention_heads=heads, conv_pos=4, conv_pos_groups=heads,
    )  # fmt: skip
    decoder = DecoderConfig(layers=layers, ffn_embed_dim=4 * dim, attention_heads=heads, vocab_size=symbols, ctc=True)
    return Recognizer.from_config(model, decoder).eval()


def settings(beam: int, tokens: int, **more: float) -> DecodeConfig:
    return DecodeConfig(beam=beam, max_len_a=0, max_len_b=tokens, min_len=tokens, **more)  # type: ignore[arg-type]


class Seconds(NamedTuple):
    """By the clock, and of the processor: these hardly feel what else the machine does."""

    wall: float
    cpu: float

    def __add__(self, other: Seconds) -> Seconds:  # type: ignore[override]
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)


def medians(works: dict[str, Callable[[], list]], rounds: int) -> dict[str, Seconds]:
    """Medians of each, in rounds of all."""
    seconds: dict[str, list[Seconds]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            seconds[name].append(Seconds(time.perf_counter() - wall, time.process_time() - cpu))
    return {name: Seconds(*map(statistics.median, zip(*each, strict=True))) for name, each in seconds.items()}


def tell(found: dict[str, Seconds], against: str) -> None:
    base = found[against]
    for name, own in found.items():
        ratios = f"{own.wall / base.wall:6.2f} × {against}   (CPU {own.cpu:7.3f} s, {own.cpu / base.cpu:6.2f} ×)"
        print(f"  {name:<20} {own.wall:7.3f} s  {ratios}", flush=True)


def memory() -> None:
    large = recognizer(1024, 9, 8)
    encoded = torch.randn(1, 750, 1024)
    beam_search(large, encoded, None, settings(40, 200, ctc_weight=0.3))
    # not ru_maxrss, which a child takes over from its parent
    (line,) = [
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:")
    ]
    print(int(line.split()[1]) / 2**20)


def record_all(
    times: dict[int, dict[str, Seconds]], search: dict[str, Seconds], whole: dict[str, Seconds], gigabytes: float
) -> None:
    """Into docs/results.json: processor time relative to ours, and to greedy search; memory."""
    columns = ["", *(f"{frames} frames" for frames in times)]
    rows: list[list[Cell]] = [["ours, s", *(round(found["ours"].cpu, 2) for found in times.values())]]
    for name in ("no cache", "copied keys", "moved keys"):
        ratios = [f"{found[name].cpu / found['ours'].cpu:.2f} ×" if name in found else None for found in times.values()]
        rows.append([name, *ratios])
    record("beam-cache", rows, columns=columns)
    kinds = [name for name in search if name != "beam 1"]
    record(
        "beam-batch",
        [[kind, *(f"{found[kind].cpu / found['beam 1'].cpu:.2f} ×" for found in (search, whole))] for kind in kinds],
    )
    record("beam-memory", [["Large sizes, beam 40, 750 frames, 200 tokens, CTC weight 0.3", round(gigabytes, 2)]])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--frames", type=int, default=100)
    options.add_argument("--tokens", type=int, default=25)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--memory", action="store_true", help="only this: a child of the benchmark")
    options.add_argument("--record", action="store_true", help="write the figures into docs/results.json")
    given = options.parse_args()
    if given.memory:
        memory()
        return
    base = recognizer(768, 6, 4)
    print(f"{torch.get_num_threads()} threads, {given.frames} frames, {given.tokens} tokens")
    with torch.inference_mode():
        decoders = {
            "ours": base.decoder,
            "copied keys": CopiedKeys(base.decoder, False),
            "moved keys": CopiedKeys(base.decoder, True),
            "no cache": NoCache(base.decoder),
        }

        def works(frames: int, tokens: int) -> dict[str, Callable[[], list]]:
            dressed = {name: Dressed(base, decoder) for name, decoder in decoders.items()}
            encoded, search = torch.randn(1, frames, 768), settings(20, tokens)
            return {name: functools.partial(beam_search, one, encoded, None, search) for name, one in dressed.items()}

        texts = {name: work()[0][0].tokens for name, work in works(30, 8).items()}
        assert all(text == texts["ours"] for text in texts.values()), "the decoders do not agree"
        times: dict[int, dict[str, Seconds]] = {}
        for frames in (given.frames, *LONGER):
            print(f"beam 20, one utterance of {frames} frames:", flush=True)
            cached = works(frames, given.tokens)
            slowest = cached.pop("no cache")
            found = medians(cached, given.rounds)
            if frames == given.frames:
                found |= medians({"no cache": slowest}, 1)
            tell(found, "ours")
            times[frames] = found

        batch = torch.randn(8, given.frames, 768)
        print(f"8 utterances of {given.frames} frames, search alone:")
        kinds = {"beam 1": settings(1, given.tokens), "beam 10": settings(10, given.tokens)}
        kinds["beam 10, CTC 0.3"] = settings(10, given.tokens, ctc_weight=0.3)
        search = medians(
            {name: functools.partial(beam_search, base, batch, None, kind) for name, kind in kinds.items()},
            given.rounds,
        )
        tell(search, "beam 1")
        encoder = AVHubert(ModelConfig()).eval()
        clips = torch.randn(8, 1, given.frames, 88, 88)
        seconds = medians({"encode": lambda: encoder(None, clips)}, 1)["encode"]
        whole = {name: seconds + value for name, value in search.items()}
        print(f"8 utterances with encoding ({seconds.wall:.2f} s):")
        tell(whole, "beam 1")
    child = subprocess.run([sys.executable, __file__, "--memory"], capture_output=True, encoding="utf-8", check=True)
    print(f"Large, beam 40, 750 frames, 200 tokens, CTC 0.3: {float(child.stdout):.2f} GiB resident")
    if given.record:
        record_all(times, search, whole, float(child.stdout))


if __name__ == "__main__":
    main()
