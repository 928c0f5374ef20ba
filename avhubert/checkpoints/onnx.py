"""Export to ONNX: the encoder, and of a recognizer the decoder, step by step with its cache, and the CTC head.

Needs the extra `onnx`. Batch and time are free in every graph; weights are float32. What is written is run by ONNX
Runtime at two other shapes and compared with the model before it is kept.

Shapes: B utterances, T frames at 25 Hz, D width, N decoder layers, H heads, L tokens so far, V symbols.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avhubert.constants import CROP_SIZE, CTC_BLANK, EOS, PAD
from avhubert.errors import CheckpointError, ConfigError, one_of
from avhubert.files import atomic_directory, refuse_existing, write_json, write_text
from avhubert.model.decoder import FIRST_POSITION, AttentionDecoder, DecoderLayer, sinusoid
from avhubert.model.encoder import AVHubert
from avhubert.model.recognizer import Recognizer
from avhubert.report import progress

FORMAT = 1


ABOUT, CARD, TOKENIZER = "export.json", "README.md", "tokenizer.model"


STREAMS = {"av": ("audio", "video"), "a": ("audio",), "v": ("video",)}


TOLERANCE = 1e-3  # largest difference from the model that is kept; about 1e-6 to 1e-5 is seen


INSIDE = 1_500_000_000  # bytes of weights; more are written beside the graph, whose own limit is 2 GB


# --------------------------------------------------------------------------- what is exported
class Encoder(nn.Module):
    """The streams of `modality` and padding_mask bool [B, T] → [B, T, D]; no shape depends on what is in them."""

    def __init__(self, model: AVHubert, modality: str) -> None:
        super().__init__()
        self.model = model
        self.streams = STREAMS[modality]

    def forward(self, *inputs: Tensor) -> Tensor:
        *given, padding_mask = inputs
        model, found = self.model, {}
        for name, x in zip(self.streams, given, strict=True):
            if name == "audio":
                found[name] = model.audio(x.transpose(1, 2).masked_fill(padding_mask[..., None], 0))
            else:
                found[name] = model.visual(x.masked_fill(padding_mask[:, None, :, None, None], 0))
        absent = torch.zeros_like(next(iter(found.values())))
        a, v = found.get("audio", absent), found.get("video", absent)
        fused = torch.cat([a, v], 2) if model.config.modality_fuse == "concat" else a + v
        return model.encoder(model.fuse(fused), padding_mask)


class DecoderStart(nn.Module):
    """encoded [B, T, D] → the keys and values [N, B, H, T, D/H] that every step looks at."""

    def __init__(self, decoder: AttentionDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [cast(DecoderLayer, layer).cross_attention.keys_values(encoded) for layer in self.decoder.layers]
        return torch.stack([keys for keys, _ in pairs]), torch.stack([values for _, values in pairs])


class DecoderStep(nn.Module):
    """The newest token int [B, 1] and the cache → log-probabilities [B, V] of the next one, and the cache with it."""

    def __init__(self, decoder: AttentionDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        token: Tensor,
        keys: Tensor,
        values: Tensor,
        encoder_keys: Tensor,
        encoder_values: Tensor,
        padding_mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        decoder = self.decoder
        position = torch.full((1,), keys.shape[3] + FIRST_POSITION, dtype=torch.int64)
        x = decoder.embedding(token) + sinusoid(position, decoder.dim)
        visible = ~padding_mask[:, None, None, :]
        all_keys, all_values = [], []
        for index, module in enumerate(decoder.layers):
            layer = cast(DecoderLayer, module)
            own, other = layer.self_attention, layer.cross_attention
            y = layer.self_attention_norm(x)
            key, value = own.keys_values(y)
            key, value = torch.cat([keys[index], key], 2), torch.cat([values[index], value], 2)
            x = x + own.attend(own.queries(y), key, value)
            q = other.queries(layer.cross_attention_norm(x))
            x = layer.feed_forward(x + other.attend(q, encoder_keys[index], encoder_values[index], mask=visible))
            all_keys.append(key)
            all_values.append(value)
        scores = F.linear(decoder.norm(x), decoder.embedding.weight)[:, 0]
        return F.log_softmax(scores, -1), torch.stack(all_keys), torch.stack(all_values)


class CTC(nn.Module):
    """encoded [B, T, D] → log-probabilities [B, T, V] of each frame."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, encoded: Tensor) -> Tensor:
        return F.log_softmax(self.head(encoded), -1)


Ports = dict[str, tuple[str, tuple[int | str, ...]]]


@dataclass(frozen=True)
class Graph:
    """One file: its module, and per input and output the name, type and axes (a number, or the name of a free one)."""

    name: str
    module: nn.Module
    inputs: Ports
    outputs: Ports

    def example(self, sizes: Mapping[str, int], seed: int) -> dict[str, Tensor]:
        """Random inputs where the free axes have these sizes; a third of the last utterance is padding."""
        random = torch.Generator().manual_seed(seed)
        found = {}
        for name, (kind, axes) in self.inputs.items():
            shape = [sizes[axis] if isinstance(axis, str) else axis for axis in axes]
            if kind == "bool":
                found[name] = torch.zeros(shape, dtype=torch.bool)
                found[name][-1, shape[1] - shape[1] // 3 :] = True
            elif kind == "int64":
                found[name] = torch.full(shape, EOS)
            else:
                found[name] = torch.randn(shape, generator=random)
        return found


def graphs(model: AVHubert | Recognizer, modality: str) -> list[Graph]:
    """What there is to export of `model`, on the CPU, in float32 and evaluation mode."""
    model = deepcopy(model).cpu().float().eval()
    encoder = model.encoder if isinstance(model, Recognizer) else model
    config = encoder.config
    streams: Ports = {
        "audio": ("float32", ("B", config.audio_feat_dim, "T")),
        "video": ("float32", ("B", 1, "T", CROP_SIZE, CROP_SIZE)),
    }
    mask: Ports = {"padding_mask": ("bool", ("B", "T"))}
    encoded: Ports = {"encoded": ("float32", ("B", "T", config.encoder_embed_dim))}
    inputs = {name: streams[name] for name in STREAMS[modality]} | mask
    found = [Graph("encoder", Encoder(encoder, modality), inputs, encoded)]
    if not isinstance(model, Recognizer):
        return found
    sizes = model.decoder_config
    heads, width = sizes.attention_heads, config.encoder_embed_dim // sizes.attention_heads
    looked_at, before, after = (
        ("float32", (sizes.layers, "B", heads, length, width)) for length in ("T", "L", "L + 1")
    )
    memory: Ports = {"encoder_keys": looked_at, "encoder_values": looked_at}
    found.append(Graph("decoder_start", DecoderStart(model.decoder), encoded, memory))
    found.append(
        Graph(
            "decoder_step",
            DecoderStep(model.decoder),
            {"token": ("int64", ("B", 1)), "keys": before, "values": before} | memory | mask,
            {"logs": ("float32", ("B", sizes.vocab_size)), "new_keys": after, "new_values": after},
        )
    )
    if model.ctc is not None:
        logs: Ports = {"logs": ("float32", ("B", "T", sizes.vocab_size))}
        found.append(Graph("ctc", CTC(model.ctc), encoded, logs))
    return found


# --------------------------------------------------------------------------- writing and checking
def export(model: AVHubert | Recognizer, out: str | Path, modality: str | None = None) -> dict[str, float]:
    """Write `model` into the new folder `out`: the graphs, `export.json`, a README and a recognizer's tokenizer.

    `modality` (av, a, v): the streams that the encoder takes; a missing one costs nothing. None: both, or the one that
    the model was fine-tuned on. Returns each graph's largest absolute difference from the model.

    Raises:
        ConfigError: the extra is not installed, an unknown modality, `out` exists, a recognizer without tokenizer.
        CheckpointError: a graph does not compute what the model does.
    """
    modality = modality or model.metadata.default_modality()
    if modality not in STREAMS:
        raise ConfigError(one_of("modality", modality, STREAMS))
    tokenizer = model.require_tokenizer("exported") if isinstance(model, Recognizer) else None
    refuse_existing(out)
    _need_extra()
    differences = {}
    try:
        with atomic_directory(out) as folder, progress() as bar:
            found = graphs(model, modality)
            for graph in bar.track(found, description="exporting"):
                differences[graph.name] = _write_checked(graph, folder / f"{graph.name}.onnx")
            about = _about(model, modality, found, differences)
            write_json(folder / ABOUT, about)
            write_text(folder / CARD, _card(about))
            if tokenizer is not None:
                (folder / TOKENIZER).write_bytes(tokenizer.serialized)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}; choose another place") from error
    return differences


def _need_extra() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"exporting needs {name}: pip install 'avhubert[onnx]'") from error


def _write_checked(graph: Graph, path: Path) -> float:
    """Write a graph; its largest difference from the model, or CheckpointError where it is too large."""
    _write(graph, path)
    difference = _difference(graph, path)
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"the exported {graph.name} differs by {difference:.2g} from the model, more than {TOLERANCE:g}: "
            "nothing was kept; please report this"
        )
    return difference


def _write(graph: Graph, path: Path) -> None:
    axes = {"B": torch.export.Dim("B", min=1), "T": torch.export.Dim("T", min=1), "L": torch.export.Dim("L", min=0)}
    free = [
        {index: axes[axis] for index, axis in enumerate(shape) if isinstance(axis, str)}
        for _, shape in graph.inputs.values()
    ]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in graph.module.state_dict().values())
    with _quiet():
        torch.onnx.export(
            graph.module.eval(),
            tuple(graph.example({"B": 2, "T": 23, "L": 4}, seed=0).values()),
            path,
            dynamo=True,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            # the encoder's inputs depend on the modality: they are one argument, *inputs
            dynamic_shapes=(tuple(free),) if isinstance(graph.module, Encoder) else tuple(free),
            external_data=weights > INSIDE,
            verbose=False,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not there and on its own parts."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _difference(graph: Graph, path: Path) -> float:
    """The largest absolute difference of ONNX Runtime's outputs from the module's, at shapes not traced with."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for seed, sizes in enumerate(({"B": 1, "T": 9, "L": 0}, {"B": 3, "T": 41, "L": 7}), 1):
        inputs = graph.example(sizes, seed)
        with torch.no_grad():
            wanted = graph.module(*inputs.values())
        given = session.run(list(graph.outputs), {name: tensor.numpy() for name, tensor in inputs.items()})
        for one, other in zip(wanted if isinstance(wanted, tuple) else (wanted,), given, strict=True):
            difference = (one - torch.from_numpy(other)).abs().max().item()
            worst = math.inf if math.isnan(difference) else max(worst, difference)
    return worst


def _about(
    model: AVHubert | Recognizer, modality: str, found: Sequence[Graph], differences: Mapping[str, float]
) -> dict[str, Any]:
    about: dict[str, Any] = {"format": FORMAT, "modality": modality, "graphs": {}}
    for graph in found:
        about["graphs"][graph.name] = {
            "file": f"{graph.name}.onnx",
            "inputs": {name: {"type": kind, "shape": list(axes)} for name, (kind, axes) in graph.inputs.items()},
            "outputs": {name: {"type": kind, "shape": list(axes)} for name, (kind, axes) in graph.outputs.items()},
            "max_abs_difference": differences[graph.name],
        }
    if isinstance(model, Recognizer):
        settings = model.decode_settings
        about |= {
            "start": EOS,
            "end": EOS,
            "pad": PAD,
            "blank": CTC_BLANK,
            "longest": {"per_frame": settings.max_len_a, "more": settings.max_len_b},
            "symbols": model.require_tokenizer("exported").symbols,
        }
    return about | {"torch": torch.__version__, "metadata": model.metadata.to_dict()}


def _card(about: Mapping[str, Any]) -> str:
    lines = [
        "# avhubert, exported to ONNX",
        "",
        "`B` utterances, `T` frames at 25 Hz, `L` tokens so far are free; everything else is fixed. All of this, and a",
        f"recognizer's symbols, stands in `{ABOUT}`.",
        "",
        "| file | input or output | type | shape |",
        "|---|---|---|---|",
    ]
    for graph in about["graphs"].values():
        for what in ("inputs", "outputs"):
            for name, of in graph[what].items():
                shape = ", ".join(map(str, of["shape"]))
                lines.append(f"| {graph['file']} | {what[:-1]} `{name}` | {of['type']} | [{shape}] |")
    lines += [
        "",
        "- `audio`: 26 log filterbank energies of 16 kHz sound at 100 Hz, four stacked, each stack normalised.",
        f"- `video`: gray mouth pictures of {CROP_SIZE}×{CROP_SIZE}, 0 to 1, then less 0.421 and divided by 0.165.",
        "- `padding_mask`: true where a frame is padding, at the end of an utterance only.",
    ]
    if "symbols" in about:
        lines += [
            "",
            "Greedy decoding: run `encoder`, then `decoder_start`; begin `decoder_step` with the token "
            f"{about['start']} and with `keys`, `values` of `L` = 0;",
            "each time give it back the token of the greatest log-probability, `new_keys` and `new_values`, until that "
            f"token is {about['end']}.",
        ]
        if "ctc" in about["graphs"]:
            lines.append(f"CTC: the greatest of each frame, repeats and blanks ({about['blank']}) left out.")
    return "\n".join(lines) + "\n"
