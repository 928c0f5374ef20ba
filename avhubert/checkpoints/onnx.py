"""Export to ONNX: the encoder and, for a recognizer, the decoder (one step with its cache) and the CTC head.

Needs the extra `onnx`. Batch size and number of frames are free in every graph; weights are float32. Each graph is run
with ONNX Runtime at two other shapes and compared with the model before it is kept.

Shapes: B utterances, T frames at 25 Hz, D width, N decoder layers, H heads, L previous tokens, V symbols.
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
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avhubert.config.input_preparation import INTEGERS, UNIT, InputPreparation
from avhubert.constants import CROP_SIZE, CTC_BLANK, EOS, GRAY_MEAN, GRAY_STD, MODALITIES, PAD
from avhubert.errors import CheckpointError, ConfigError, one_of
from avhubert.files import atomic_directory, refuse_existing, write_json, write_text
from avhubert.model.decoder import AttentionDecoder, Cache, LayerCache
from avhubert.model.encoder import AVHubert
from avhubert.model.recognizer import Recognizer
from avhubert.report import progress

FORMAT = 1
_SCALES = {INTEGERS: "16-bit integers", UNIT: "numbers between -1 and 1"}
ABOUT, CARD, TOKENIZER = "export.json", "README.md", "tokenizer.model"
TOLERANCE = 1e-3  # largest accepted difference from the model; 1e-6 to 1e-5 is usual
MAX_EMBEDDED_BYTES = 1_500_000_000  # larger weights are written beside the graph, whose own limit is 2 GB
TRACED_SIZES = {"B": 2, "T": 23, "L": 4}
CHECKED_SIZES = ({"B": 1, "T": 9, "L": 0}, {"B": 3, "T": 41, "L": 7})


# --------------------------------------------------------------------------- the exported modules
class Encoder(nn.Module):
    """The model's encoder without operations whose shapes depend on values, which a graph cannot have."""

    def __init__(self, model: AVHubert, modality: str) -> None:
        super().__init__()
        self.model = model
        self.streams = MODALITIES[modality]

    def forward(self, *inputs: Tensor) -> Tensor:
        """The streams of the modality and padding_mask bool [B, T] → encoded frames [B, T, D]."""
        *streams, padding_mask = inputs
        model, features = self.model, dict[str, Tensor]()
        for name, x in zip(self.streams, streams, strict=True):
            if name == "audio":
                features[name] = model.audio(x.transpose(1, 2).masked_fill(padding_mask[..., None], 0))
            else:
                features[name] = model.visual(x.masked_fill(padding_mask[:, None, :, None, None], 0))
        joined = model.join_streams(features.get("audio"), features.get("video"))
        encoded: Tensor = model.encoder(model.fuse(joined), padding_mask)
        return encoded


class DecoderStart(nn.Module):
    """The keys and values of the frames, which every step of the decoder attends to."""

    def __init__(self, decoder: AttentionDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded frames [B, T, D] → keys and values, each [N, B, H, T, D/H]."""
        layers = self.decoder.start(encoded, None, beams=1).layers
        return torch.stack([layer.encoder_keys for layer in layers]), torch.stack(
            [layer.encoder_values for layer in layers]
        )


class ExportedLayerCache(LayerCache):
    """A layer cache that is replaced instead of changed in place, as a graph needs."""

    def append(self, key: Tensor, value: Tensor, used: int) -> tuple[Tensor, Tensor]:
        """Append keys and values; all of those before are in use."""
        self.keys, self.values = torch.cat([self.keys, key], 2), torch.cat([self.values, value], 2)
        return self.keys, self.values


class DecoderStep(nn.Module):
    """One step of the decoder for one beam."""

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
        """Predict the next token.

        Args:
            token: The newest token, int [B, 1].
            keys: Of the previous tokens, [N, B, H, L, D/H].
            values: The same.
            encoder_keys: Of the frames, [N, B, H, T, D/H].
            encoder_values: The same.
            padding_mask: bool [B, T].

        Returns:
            Log-probabilities [B, V], and keys and values with those of the newest token, [N, B, H, L + 1, D/H].
        """
        parts = zip(keys, values, encoder_keys, encoder_values, strict=True)
        layers: list[LayerCache] = [ExportedLayerCache(*part) for part in parts]
        length = keys.shape[3]
        ancestors = token.new_ones((token.shape[0], 1, length), dtype=torch.bool)
        cache = Cache(layers, ~padding_mask[:, None, None, :], ancestors, length)
        scores = self.decoder.step(token, cache)[:, 0]
        new_keys, new_values = [layer.keys for layer in layers], [layer.values for layer in layers]
        return F.log_softmax(scores, -1), torch.stack(new_keys), torch.stack(new_values)


class CTC(nn.Module):
    """The CTC head."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, encoded: Tensor) -> Tensor:
        """Encoded frames [B, T, D] → log-probabilities [B, T, V]."""
        return F.log_softmax(self.head(encoded), -1)


# --------------------------------------------------------------------------- graphs
Ports = dict[str, tuple[str, tuple[int | str, ...]]]


@dataclass(frozen=True)
class Graph:
    """One ONNX file.

    Attributes:
        name: Of the file, without suffix.
        module: The module that is exported.
        inputs: Name to type and axes; an axis is a size, or the name of a free size.
        outputs: The same.
    """

    name: str
    module: nn.Module
    inputs: Ports
    outputs: Ports

    def example(self, sizes: Mapping[str, int], seed: int) -> dict[str, Tensor]:
        """Random inputs whose free axes have the given sizes; a third of the last utterance is padding."""
        random = torch.Generator().manual_seed(seed)
        inputs = {}
        for name, (kind, axes) in self.inputs.items():
            shape = [sizes[axis] if isinstance(axis, str) else axis for axis in axes]
            if kind == "bool":
                inputs[name] = torch.zeros(shape, dtype=torch.bool)
                inputs[name][-1, shape[1] - shape[1] // 3 :] = True
            elif kind == "int64":
                inputs[name] = torch.full(shape, EOS)
            else:
                inputs[name] = torch.randn(shape, generator=random)
        return inputs


def make_graphs(model: AVHubert | Recognizer, modality: str) -> list[Graph]:
    """The graphs of a copy of `model` on the CPU, in float32 and evaluation mode."""
    model = deepcopy(model).cpu().float().eval()
    encoder = model.encoder if isinstance(model, Recognizer) else model
    config = encoder.config
    streams: Ports = {
        "audio": ("float32", ("B", config.audio_feat_dim, "T")),
        "video": ("float32", ("B", 1, "T", CROP_SIZE, CROP_SIZE)),
    }
    mask: Ports = {"padding_mask": ("bool", ("B", "T"))}
    encoded: Ports = {"encoded": ("float32", ("B", "T", config.encoder_embed_dim))}
    inputs = {name: streams[name] for name in MODALITIES[modality]} | mask
    graphs = [Graph("encoder", Encoder(encoder, modality), inputs, encoded)]
    if not isinstance(model, Recognizer):
        return graphs
    sizes = model.decoder_config
    heads, width = sizes.attention_heads, config.encoder_embed_dim // sizes.attention_heads
    of_frames, before, after = (
        ("float32", (sizes.layers, "B", heads, length, width)) for length in ("T", "L", "L + 1")
    )
    memory: Ports = {"encoder_keys": of_frames, "encoder_values": of_frames}
    graphs.append(Graph("decoder_start", DecoderStart(model.decoder), encoded, memory))
    graphs.append(
        Graph(
            "decoder_step",
            DecoderStep(model.decoder),
            {"token": ("int64", ("B", 1)), "keys": before, "values": before} | memory | mask,
            {"logs": ("float32", ("B", sizes.vocab_size)), "new_keys": after, "new_values": after},
        )
    )
    if model.ctc is not None:
        logs: Ports = {"logs": ("float32", ("B", "T", sizes.vocab_size))}
        graphs.append(Graph("ctc", CTC(model.ctc), encoded, logs))
    return graphs


# --------------------------------------------------------------------------- writing and checking
def export(model: AVHubert | Recognizer, out: str | Path, modality: str | None = None) -> dict[str, float]:
    """Write the ONNX graphs of a model, their description and a recognizer's tokenizer.

    Args:
        model: The model.
        out: A new folder.
        modality: av, a or v: the streams that the encoder takes. None: both, or the one of the model's fine-tuning.

    Returns:
        The largest absolute difference from the model, by graph.

    Raises:
        ConfigError: The extra is not installed, the modality is unknown, `out` exists, or the recognizer has no
            tokenizer.
        CheckpointError: A graph differs from the model.
    """
    modality = modality or model.metadata.default_modality()
    if modality not in MODALITIES:
        raise ConfigError(one_of("modality", modality, MODALITIES))
    tokenizer = model.require_tokenizer("exported") if isinstance(model, Recognizer) else None
    refuse_existing(out)
    _need_extra()
    differences = {}
    try:
        with atomic_directory(out) as folder, progress() as bar:
            graphs = make_graphs(model, modality)
            for graph in bar.track(graphs, description="exporting"):
                differences[graph.name] = _write_checked(graph, folder / f"{graph.name}.onnx")
            about = _about(model, modality, graphs, differences)
            write_json(folder / ABOUT, about)
            write_text(folder / CARD, _card(about, model.metadata.preparation()))
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
    """Write a graph and return its largest difference from the model; CheckpointError if that is too large."""
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
            tuple(graph.example(TRACED_SIZES, seed=0).values()),
            path,
            dynamo=True,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            # the encoder's inputs depend on the modality: they are one argument, *inputs
            dynamic_shapes=(tuple(free),) if isinstance(graph.module, Encoder) else tuple(free),
            external_data=weights > MAX_EMBEDDED_BYTES,
            verbose=False,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's remarks about missing packages and about itself."""
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
    """The largest absolute difference between the outputs of ONNX Runtime and of the module, at other shapes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for seed, sizes in enumerate(CHECKED_SIZES, 1):
        inputs = graph.example(sizes, seed)
        with torch.no_grad():
            expected = graph.module(*inputs.values())
        actual = session.run(list(graph.outputs), {name: tensor.numpy() for name, tensor in inputs.items()})
        for x, y in zip(expected if isinstance(expected, tuple) else (expected,), actual, strict=True):
            difference = (x - torch.from_numpy(y)).abs().max().item()
            worst = math.inf if math.isnan(difference) else max(worst, difference)
    return worst


def _about(
    model: AVHubert | Recognizer, modality: str, graphs: Sequence[Graph], differences: Mapping[str, float]
) -> dict[str, Any]:
    about: dict[str, Any] = {"format": FORMAT, "modality": modality, "graphs": {}}
    for graph in graphs:
        about["graphs"][graph.name] = {
            "file": f"{graph.name}.onnx",
            "inputs": {name: {"type": kind, "shape": list(axes)} for name, (kind, axes) in graph.inputs.items()},
            "outputs": {name: {"type": kind, "shape": list(axes)} for name, (kind, axes) in graph.outputs.items()},
            "max_abs_difference": differences[graph.name],
        }
    if isinstance(model, Recognizer):
        settings = model.decode_settings
        about |= {
            "start": model.decoder.start_token,
            "end": EOS,
            "pad": PAD,
            "blank": CTC_BLANK,
            "longest": {"per_frame": settings.max_len_a, "more": settings.max_len_b},
            "symbols": model.require_tokenizer("exported").symbols,
        }
    return about | {"torch": torch.__version__, "metadata": model.metadata.to_dict()}


def _card(about: Mapping[str, Any], preparation: InputPreparation) -> str:
    lines = [
        "# avhubert, exported to ONNX",
        "",
        "`B` (utterances), `T` (frames at 25 Hz) and `L` (previous tokens) are free; all other sizes are fixed.",
        f"`{ABOUT}` has all of this and the symbols of a recognizer.",
        "",
        "| file | input or output | type | shape |",
        "|---|---|---|---|",
    ]
    for graph in about["graphs"].values():
        for kind in ("inputs", "outputs"):
            for name, port in graph[kind].items():
                shape = ", ".join(map(str, port["shape"]))
                lines.append(f"| {graph['file']} | {kind[:-1]} `{name}` | {port['type']} | [{shape}] |")
    lines += [
        "",
        "- `audio`: 26 log filterbank energies of 16 kHz audio at 100 Hz, four stacked, each stack normalised;",
        f"  samples as {_SCALES[preparation.audio_scale]}.",
        f"- `video`: gray mouth crops ({preparation.crop}) of {CROP_SIZE}×{CROP_SIZE}: values from 0 to 1, "
        f"minus {GRAY_MEAN}, divided by {GRAY_STD}.",
        "- `padding_mask`: true where a frame is padding; only at the end of an utterance.",
    ]
    if "symbols" in about:
        lines += [
            "",
            "Greedy decoding: run `encoder`, then `decoder_start`, then `decoder_step` repeatedly.",
            f"The first step takes the token {about['start']}, and `keys` and `values` with `L` = 0.",
            "Each further step takes the token with the highest log-probability, `new_keys` and `new_values`",
            f"of the step before. Stop when the token is {about['end']}.",
        ]
        if "ctc" in about["graphs"]:
            lines.append(f"CTC: take the best symbol of each frame, then remove repeats and blanks ({about['blank']}).")
    return "\n".join(lines) + "\n"
