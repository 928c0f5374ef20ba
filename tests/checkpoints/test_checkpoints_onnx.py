"""What is exported computes in ONNX Runtime what the model does, at any batch size and length."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avhubert.checkpoints import onnx as exporting
from avhubert.checkpoints.onnx import Graph, export
from avhubert.cli.app import main, parser
from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.constants import EOS
from avhubert.data.tokenizer import train_tokenizer
from avhubert.decode.beam_search import beam_search
from avhubert.decode.ctc import ctc_best_path
from avhubert.errors import CheckpointError, ConfigError
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "export-onnx.md"
SIZES = ModelConfig(
    visual_width=4, visual_blocks=[1, 1], encoder_layers=2, encoder_embed_dim=16, encoder_ffn_embed_dim=24,
    encoder_attention_heads=2, conv_pos=8, conv_pos_groups=4,
)  # fmt: skip
SHAPES = [(1, 12, 12), (3, 31, 9)]  # utterances, frames, those of the last utterance; the trace has 2 and 23


def random_weights(model: torch.nn.Module) -> None:
    """Random values away from the initial ones, so that no term is a multiplication by one or an addition of zero."""
    torch.manual_seed(3)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.add_(0.1 * (torch.rand_like(tensor) if "running_var" in name else torch.randn_like(tensor)))


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    tokenizer = train_tokenizer(["the quick brown fox jumps over the lazy dog", "a wizard's job is to vex"], 40)
    decoder = DecoderConfig(layers=2, ffn_embed_dim=24, attention_heads=2, ctc=True, vocab_size=tokenizer.vocab_size)
    torch.manual_seed(0)
    model = Recognizer.from_config(SIZES, decoder)
    random_weights(model)
    with torch.no_grad():
        model.decoder.embedding.weight[EOS] *= 0.1  # no end at once: texts have some tokens
    model.tokenizer, model.decode_settings = tokenizer, DecodeConfig(beam=1)
    return model.eval()


def blocks(kind: str) -> list[str]:
    """What stands in docs/how-to/export-onnx.md between ```kind and ```."""
    return re.findall(rf"```{kind}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def exported(recognizer: Recognizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the first command of docs/how-to/export-onnx.md makes of the model."""
    folder = tmp_path_factory.mktemp("onnx")
    recognizer.save_pretrained(folder / "runs" / "demo" / "model")
    command = shlex.split(blocks("sh")[0].splitlines()[-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert command[0] == "avhubert"
        assert main(command[1:]) == 0
    return folder / "onnx"


def test_the_documents_commands_are_understood() -> None:
    lines = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        if line[0] == "avhubert":
            assert parser().parse_args(line[1:]).out.name.startswith("onnx")


def test_the_documents_example(
    recognizer: Recognizer, exported: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(exported, tmp_path / "onnx")
    for suffix in (".mp4", ".wav"):
        shutil.copy(data_dir / f"test0{suffix}", tmp_path / f"clip{suffix}")
    monkeypatch.chdir(tmp_path)
    [code] = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(code, str(DOCUMENT), "exec"), names)
    audio, video = (torch.from_numpy(np.ascontiguousarray(names[name])) for name in ("audio", "video"))
    with torch.no_grad():
        [[best]] = beam_search(recognizer, recognizer.encode(audio, video), None, DecodeConfig(beam=1))
    assert len(names["tokens"]) > 0
    assert names["text"] == recognizer.tokenizer.decode(best.tokens)


def batch(utterances: int, frames: int, last: int) -> dict[str, Tensor]:
    """Inputs with rubbish in the padding."""
    random = torch.Generator().manual_seed(frames)
    return {
        "audio": torch.randn(utterances, 104, frames, generator=random),
        "video": torch.randn(utterances, 1, frames, 88, 88, generator=random),
        "padding_mask": torch.arange(frames) >= torch.tensor([frames] * (utterances - 1) + [last])[:, None],
    }


def runner(folder: Path) -> Callable[..., list[np.ndarray]]:
    """`run(graph, **inputs)` gives a graph's outputs."""
    sessions: dict[str, Any] = {}

    def run(graph: str, **inputs: Any) -> list[np.ndarray]:
        if graph not in sessions:
            sessions[graph] = onnxruntime.InferenceSession(folder / f"{graph}.onnx")
        return sessions[graph].run(None, {name: np.asarray(value) for name, value in inputs.items()})

    return run


def real(x: Tensor | np.ndarray, padding_mask: Tensor) -> Tensor:
    """The frames that are no padding."""
    return torch.as_tensor(x)[~padding_mask]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_encoder_and_the_ctc_head(recognizer: Recognizer, exported: Path, shape: tuple[int, int, int]) -> None:
    inputs, run = batch(*shape), runner(exported)
    with torch.no_grad():
        wanted = recognizer.encode(**inputs)
        assert recognizer.ctc is not None
        scores = recognizer.ctc(wanted)
    [encoded] = run("encoder", **inputs)
    assert encoded.shape == (*shape[:2], 16)
    mask = inputs["padding_mask"]
    torch.testing.assert_close(real(encoded, mask), real(wanted, mask), atol=1e-4, rtol=0)
    [logs] = run("ctc", encoded=encoded)
    torch.testing.assert_close(real(logs, mask), real(scores.log_softmax(-1), mask), atol=1e-4, rtol=0)
    lengths = (~mask).sum(1).tolist()
    assert ctc_best_path(torch.from_numpy(logs), lengths) == ctc_best_path(scores, lengths)


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_of_the_decoder(recognizer: Recognizer, exported: Path, shape: tuple[int, int, int]) -> None:
    inputs, run, tokens = batch(*shape), runner(exported), torch.tensor([2, 7, 5, 9, 4, 11])
    mask = inputs["padding_mask"]
    with torch.no_grad():
        encoded = recognizer.encode(**inputs)
        wanted = recognizer.decoder(tokens.expand(shape[0], -1), encoded, mask).log_softmax(-1)
    memory = dict(zip(("encoder_keys", "encoder_values"), run("decoder_start", encoded=encoded), strict=True))
    keys = values = np.zeros((2, shape[0], 2, 0, 8), np.float32)
    for position, token in enumerate(tokens):
        logs, keys, values = run(
            "decoder_step", token=token.expand(shape[0], 1), keys=keys, values=values, padding_mask=mask, **memory
        )
        assert keys.shape[3] == position + 1
        torch.testing.assert_close(torch.from_numpy(logs), wanted[:, position], atol=1e-4, rtol=0)


def test_what_lies_beside_the_graphs(recognizer: Recognizer, exported: Path) -> None:
    names = ("ctc", "decoder_start", "decoder_step", "encoder")
    assert sorted(path.name for path in exported.iterdir()) == [
        *("README.md", *(f"{name}.onnx" for name in names[:3]), "encoder.onnx", "export.json", "tokenizer.model")
    ]
    about = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    assert about["symbols"] == recognizer.tokenizer.symbols
    card = (exported / "README.md").read_text(encoding="utf-8")
    for name in names:
        graph = about["graphs"][name]
        assert 0 <= graph["max_abs_difference"] < 1e-4
        session = onnxruntime.InferenceSession(exported / graph["file"])
        for ports, said in ((session.get_inputs(), graph["inputs"]), (session.get_outputs(), graph["outputs"])):
            assert [port.name for port in ports] == list(said)
            assert [port.shape for port in ports] == [of["shape"] for of in said.values()]
            assert all(f"`{port.name}`" in card for port in ports)


@pytest.mark.parametrize(
    ("modality", "changes"),
    [
        ("v", {"modality_fuse": "add", "layer_norm_first": False}),
        ("a", {"num_classes": [5], "visual_activation": "relu"}),
    ],
)
def test_one_stream_of_an_encoder(modality: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = AVHubert(dataclasses.replace(SIZES, **changes)).train()
    random_weights(model)
    model.metadata = ModelMetadata(modalities=[modality])
    export(model, tmp_path / "x")
    assert model.training  # exporting leaves it as it was
    run = runner(tmp_path / "x")
    for shape in SHAPES:
        inputs = batch(*shape)
        del inputs["audio" if modality == "v" else "video"]
        mask = inputs["padding_mask"]
        wanted = model.extract_features(**inputs)
        torch.testing.assert_close(real(run("encoder", **inputs)[0], mask), real(wanted, mask), atol=1e-4, rtol=0)
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["README.md", "encoder.onnx", "export.json"]


def test_a_graph_that_computes_something_else_is_refused(
    recognizer: Recognizer, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.onnx"
    shutil.copy(exported / "encoder.onnx", other)
    changed = AVHubert(SIZES)
    random_weights(changed)
    with torch.no_grad():
        changed.audio.bias.add_(1)
    [graph] = exporting.make_graphs(changed, "av")
    assert exporting._difference(graph, other) > 1e-3
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(CheckpointError, match=r"the exported ctc differs by .* nothing was kept"):
        exporting._write_checked(ctc_graph(recognizer), tmp_path / "x.onnx")


def test_large_weights_lie_beside_their_graph(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "MAX_EMBEDDED_BYTES", 100)
    (tmp_path / "first").mkdir()
    assert exporting._write_checked(ctc_graph(recognizer), tmp_path / "first" / "ctc.onnx") < 1e-4
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["ctc.onnx", "ctc.onnx.data"]
    (tmp_path / "first").rename(tmp_path / "second")  # as `export` does in the end
    assert exporting._difference(ctc_graph(recognizer), tmp_path / "second" / "ctc.onnx") < 1e-4


def ctc_graph(recognizer: Recognizer) -> Graph:
    """The smallest of the graphs."""
    assert recognizer.ctc is not None
    encoded, logs = ("float32", ("B", "T", 16)), ("float32", ("B", "T", recognizer.decoder_config.vocab_size))
    return Graph("ctc", exporting.CTC(recognizer.ctc), {"encoded": encoded}, {"logs": logs})


def test_wrong_input_is_one_sentence(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    recognizer.save_pretrained(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "model")]) == 2
    assert capsys.readouterr().err == (
        f"avhubert: {tmp_path / 'model'} exists already; choose another place or delete it\n"
    )
    with pytest.raises(ConfigError, match="unknown modality 'x'; known: a, av, v"):
        export(recognizer, tmp_path / "x", "x")
    without = Recognizer.from_config(SIZES, DecoderConfig(layers=1, attention_heads=2, vocab_size=5))
    with pytest.raises(ConfigError, match="no tokenizer"):
        export(without, tmp_path / "x")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what an import finds where it is not installed
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err == "avhubert: exporting needs onnxruntime: pip install 'avhubert[onnx]'\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
