"""Published checkpoints of small models that are made here: there and back, and what is wrong with a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from avhubert.checkpoints.config_file import read_config
from avhubert.checkpoints.fairseq import read as fairseq
from avhubert.checkpoints.fairseq.extras import EXTRAS
from avhubert.checkpoints.fairseq.names import module_names, published_name
from avhubert.checkpoints.fairseq.read import convert
from avhubert.checkpoints.fairseq.write import to_fairseq
from avhubert.checkpoints.torchfile import TorchFile
from avhubert.config.schema import DecodeConfig
from avhubert.constants import SPECIAL_SYMBOLS
from avhubert.data.tokenizer import Tokenizer
from avhubert.errors import AvhubertError, CheckpointError, ConfigError
from avhubert.model.encoder import AVHubert
from avhubert.model.recognizer import Recognizer

W2V = "encoder.w2v_model."
VARIANTS: dict[str, dict[str, Any]] = {
    "as the published ones": {},
    "post-norm, added": {"layer_norm_first": False, "modality_fuse": "add"},
    "post-norm, concatenated": {"layer_norm_first": False},
    "pre-norm, added": {"modality_fuse": "add"},
    "relu": {"visual_activation": "relu", "visual_blocks": [2, 1, 1, 1]},
    "feature masking": {"masking_type": "feature", "untie_final_proj": False, "logit_temp": 0.2},
}


def weights(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / "model.safetensors")


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_pretrained_model_comes_back_as_it_was(
    changes: dict[str, Any], pretrained: Callable[..., Path], tmp_path: Path
) -> None:
    directory = pretrained(**changes)
    notes = to_fairseq(directory, tmp_path / "a.pt")
    assert len(notes) == 1
    assert "cannot build visual_width=8, visual_blocks=" in notes[0]
    random = torch.get_rng_state()
    assert convert(tmp_path / "a.pt", tmp_path / "back") == []
    assert torch.equal(torch.get_rng_state(), random)
    assert same(weights(tmp_path / "back"), weights(directory))
    assert read_config(tmp_path / "back").model == read_config(directory).model
    assert read_config(tmp_path / "back").metadata.to_dict() == {"converted_from": "a.pt"}
    assert files(tmp_path) == ["a.pt", "back", "pretrained"]


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_recognizer_comes_back_as_it_was(
    changes: dict[str, Any], finetuned: Callable[..., Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    directory = finetuned(**changes)
    notes = to_fairseq(directory, tmp_path / "a.pt")
    assert not any("CTC" in note for note in notes)
    assert convert(tmp_path / "a.pt", tmp_path / "back") == []
    assert same(weights(tmp_path / "back"), weights(directory))
    before, after = read_config(directory), read_config(tmp_path / "back")
    assert (after.model, after.decoder) == (before.model, before.decoder)
    assert after.metadata.to_dict() == {"converted_from": "a.pt", "fine_tuned_on": "video"}
    assert (tmp_path / "back" / "tokenizer.model").read_bytes() == tokenizer.serialized
    assert after.decode == DecodeConfig()  # a published file has no place for decoding settings


def test_a_ctc_head_is_left_out_and_named(finetuned: Callable[..., Path], tmp_path: Path) -> None:
    directory = finetuned(ctc=True)
    notes = to_fairseq(directory, tmp_path / "a.pt")
    assert "left out, for the published layout has no CTC head: ctc.weight, ctc.bias" in notes
    convert(tmp_path / "a.pt", tmp_path / "back")
    was = weights(directory)
    assert {"ctc.weight", "ctc.bias"} <= was.keys()
    assert same(weights(tmp_path / "back"), {name: was[name] for name in was if not name.startswith("ctc.")})
    decoder = read_config(tmp_path / "back").decoder
    assert decoder is not None
    assert decoder.ctc is False


def test_the_published_names_of_a_pretrained_model(pretrained: Callable[..., Path], tmp_path: Path) -> None:
    to_fairseq(pretrained(), tmp_path / "a.pt")
    names = set(TorchFile(tmp_path / "a.pt").content["model"])
    resnet, layer = "feature_extractor_video.resnet.", "encoder.layers.0."
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"mask_emb", "label_embs_concat", f"{resnet}frontend3D.0.weight", f"{resnet}frontend3D.2.weight"}
    expected |= {f"{resnet}frontend3D.1.{leaf}" for leaf in norm}
    for block in (f"{resnet}trunk.layer{stage}.0." for stage in range(1, 5)):
        expected |= {f"{block}{part}.weight" for part in ("conv1", "conv2", "relu1", "relu2")}
        expected |= {f"{block}bn{number}.{leaf}" for number in (1, 2) for leaf in norm}
        if "layer1" not in block:
            expected |= {f"{block}downsample.0.weight", *(f"{block}downsample.1.{leaf}" for leaf in norm)}
    expected |= {f"encoder.pos_conv.0.{leaf}" for leaf in ("bias", "weight_g", "weight_v")}
    linear = ["feature_extractor_audio.proj", "feature_extractor_video.proj", "post_extract_proj", "layer_norm"]
    linear += ["encoder.layer_norm", "final_proj", *(f"{layer}self_attn.{x}_proj" for x in ("q", "k", "v", "out"))]
    linear += [f"{layer}{part}" for part in ("self_attn_layer_norm", "fc1", "fc2", "final_layer_norm")]
    expected |= {f"{name}.{leaf}" for name in linear for leaf in ("weight", "bias")}
    assert names == expected


def test_the_published_names_of_a_recognizer(finetuned: Callable[..., Path], tmp_path: Path) -> None:
    to_fairseq(finetuned(), tmp_path / "a.pt")
    content = TorchFile(tmp_path / "a.pt").content
    names = set(content["model"])
    decoder = {name for name in names if name.startswith("decoder.")}
    expected = {"decoder.embed_tokens.weight", "decoder.layer_norm.weight", "decoder.layer_norm.bias"}
    parts = [f"{kind}.{x}_proj" for kind in ("self_attn", "encoder_attn") for x in ("q", "k", "v", "out")]
    parts += ["self_attn_layer_norm", "encoder_attn_layer_norm", "fc1", "fc2", "final_layer_norm"]
    expected |= {f"decoder.layers.{n}.{part}.{leaf}" for n in (0, 1) for part in parts for leaf in ("weight", "bias")}
    assert decoder == expected
    assert all(name.startswith(W2V) for name in names - decoder)
    assert f"{W2V}mask_emb" in names
    assert f"{W2V}final_proj.weight" not in names
    assert content["cfg"]["model"]["w2v_args"]["model"]["encoder_layers"] == 1
    assert content["task_state"]["target_dictionary"].name == "fairseq.data.dictionary.Dictionary"
    assert content["task_state"]["s2s_tokenizer"].name == "fairseq.data.encoders.sentencepiece_bpe.SentencepieceBPE"


def test_a_loaded_file_computes_what_the_directory_does(finetuned: Callable[..., Path], tmp_path: Path) -> None:
    from avhubert.checkpoints.directory import load_model

    directory = finetuned()
    to_fairseq(directory, tmp_path / "a.pt")
    loaded, own = fairseq.load(tmp_path / "a.pt"), load_model(directory)
    assert isinstance(loaded, Recognizer)
    assert isinstance(own, Recognizer)
    assert not loaded.training
    assert all(parameter.requires_grad and parameter.device.type == "cpu" for parameter in loaded.parameters())
    strides = {name: tensor.stride() for name, tensor in own.state_dict().items()}  # kernels lie channels last: speed
    assert {name: tensor.stride() for name, tensor in loaded.state_dict().items()} == strides
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("The fox")) == "the fox"
    audio, video = torch.randn(1, 104, 9), torch.randn(1, 1, 9, 32, 32)
    tokens = torch.tensor([[2, 5, 7]])
    torch.testing.assert_close(loaded(tokens, audio, video), own(tokens, audio, video), atol=0, rtol=0)


# --------------------------------------------------------------------------- files that are written here
def content_of(model: AVHubert | Recognizer, directory: Path, target: Path) -> dict[str, Any]:
    """What `to_fairseq` says of a directory, in plain values: tensors, configuration; no dictionaries."""
    to_fairseq(directory, target)
    cfg = TorchFile(target).content["cfg"]
    decoder = model.decoder_config if isinstance(model, Recognizer) else None
    encoder = model.encoder if isinstance(model, Recognizer) else model
    table = module_names(encoder.config, decoder)
    named = {published_name(name, table): tensor for name, tensor in model.state_dict().items()}
    target.unlink()
    return {"model": {str(name): tensor for name, tensor in named.items()}, "cfg": cfg, "task_state": {}}


@pytest.fixture
def content(pretrained: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    """What the file of a small pre-trained model holds."""
    from avhubert.checkpoints.directory import load_model

    return content_of(load_model(pretrained()), tmp_path / "pretrained", tmp_path / "a.pt")


@pytest.fixture
def recognizer_content(finetuned: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    """What the file of a small recognizer holds, without its tokenizer."""
    from avhubert.checkpoints.directory import load_model

    return content_of(load_model(finetuned()), tmp_path / "finetuned", tmp_path / "a.pt")


def test_a_file_of_plain_values_is_read(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "back")
    assert same(weights(tmp_path / "back"), weights(tmp_path / "pretrained"))
    assert read_config(tmp_path / "back").model == read_config(tmp_path / "pretrained").model


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.module.{name}",
        lambda name: name.replace("encoder.layers", "encoder._orig_mod.layers").replace(
            "final_proj.", "final_proj.module."
        ),
    ],
)
def test_wrappers_in_names_are_dropped(wrapped: Callable[[str], str], content: dict[str, Any], tmp_path: Path) -> None:
    content["model"] = {wrapped(name): tensor for name, tensor in content["model"].items()}
    torch.save(content, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "back")
    assert same(weights(tmp_path / "back"), weights(tmp_path / "pretrained"))


def test_two_tensors_of_one_name(content: dict[str, Any], tmp_path: Path) -> None:
    content["model"]["module.mask_emb"] = content["model"]["mask_emb"]
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt: two tensors have the same name apart from 'module\.'"):
        fairseq.load(tmp_path / "a.pt")


def test_half_precision_becomes_single(content: dict[str, Any], tmp_path: Path) -> None:
    tensors = content["model"]
    content["model"] = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
    torch.save(content, tmp_path / "a.pt")
    loaded = fairseq.load(tmp_path / "a.pt")
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32, torch.int64}
    assert torch.equal(loaded.state_dict()["audio.weight"], tensors["feature_extractor_audio.proj.weight"].half())


def test_the_older_flat_namespace_is_read(content: dict[str, Any], tmp_path: Path) -> None:
    import argparse

    content["args"] = argparse.Namespace(**content.pop("cfg")["model"])
    torch.save(content | {"cfg": None}, tmp_path / "a.pt")
    assert fairseq.read(tmp_path / "a.pt").model == read_config(tmp_path / "pretrained").model


def test_sizes_that_the_configuration_lacks_come_from_the_tensors(content: dict[str, Any], tmp_path: Path) -> None:
    keys = ("audio_feat_dim", "encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim", "conv_pos", "final_dim")
    for key in (*keys, "conv_pos_groups", "modality_fuse", "masking_type", "resnet_relu_type"):
        del content["cfg"]["model"][key]
    torch.save(content, tmp_path / "a.pt")
    published = fairseq.read(tmp_path / "a.pt")
    assert published.model == read_config(tmp_path / "pretrained").model
    assert published.notes == []


def test_what_no_tensor_tells_is_assumed_and_said(content: dict[str, Any], tmp_path: Path) -> None:
    del content["cfg"]
    torch.save(content, tmp_path / "a.pt")
    with pytest.warns(UserWarning, match=r"a\.pt does not tell the encoder's number of attention heads; 1 is assumed"):
        notes = convert(tmp_path / "a.pt", tmp_path / "back")
    assert notes == [
        "layer_norm_first: true, as in every published model",
        "encoder_attention_heads: 1, which the file does not tell",
    ]
    assert json.loads((tmp_path / "back" / "config.json").read_text(encoding="utf-8"))["metadata"][
        "assumed"
    ] == "; ".join(notes)
    assert same(weights(tmp_path / "back"), weights(tmp_path / "pretrained"))


def test_a_recognizer_without_the_pretrained_configuration(recognizer_content: dict[str, Any], tmp_path: Path) -> None:
    del recognizer_content["cfg"]["model"]["w2v_args"]
    torch.save(recognizer_content, tmp_path / "a.pt")
    with pytest.warns(UserWarning, match="4 is assumed"):  # the decoder's
        published = fairseq.read(tmp_path / "a.pt")
    own = read_config(tmp_path / "finetuned")
    assert published.decoder == own.decoder
    differing = {key for key, value in vars(own.model).items() if getattr(published.model, key) != value}
    # of these neither tensors nor the fine-tuning configuration tell; all but the heads matter to pre-training alone
    assert differing == {"encoder_attention_heads", "final_dim", "untie_final_proj"}


def change_model(**changes: Any) -> Callable[[dict], None]:
    return lambda content: content["cfg"]["model"].update(changes)


def drop(*names: str) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for name in names:
            del content["model"][name]

    return change


def put(name: str, value: Any) -> Callable[[dict], None]:
    return lambda content: content["model"].update({name: value})


def shape(name: str, *size: int) -> Callable[[dict], None]:
    return put(name, torch.zeros(size))


def replace(**changes: Any) -> Callable[[dict], None]:
    return lambda content: content.update(changes)


def many_layers(content: dict) -> None:
    """Few numbers in the file, but a width that asks the model for 4 TB."""
    content["model"]["feature_extractor_audio.proj.weight"] = torch.zeros(1 << 20, 1)
    del content["cfg"]["model"]["encoder_embed_dim"]
    content["cfg"]["model"].update(encoder_attention_heads=1, conv_pos_groups=1)


LAYER = "encoder.layers.0."
WRONG: dict[str, tuple[Callable[[dict], Any], str]] = {
    "missing": (drop("encoder.layer_norm.bias"), "lacks tensor encoder.layer_norm.bias: "),
    "four missing": (
        drop(*(f"{LAYER}self_attn.{x}_proj.bias" for x in ("q", "k", "v", "out"))),
        r"lacks tensors encoder\.layers\.0\.self_attn\.[a-z_.]+, .*, .* and 1 more",
    ),
    "missing, and it tells a size": (drop("layer_norm.weight"), "lacks layer_norm.weight: it is not a whole"),
    "a layer missing": (change_model(encoder_layers=2), r"lacks tensors encoder\.layers\.1\."),
    "left over": (shape("extra.weight", 2), r"has the unknown tensor extra\.weight"),
    "left over, of two lines": (shape("extra\nweight", 2), r"has the unknown tensor extra\?weight"),
    "a layer left over": (shape("encoder.layers.1.fc1.bias", 64), r"the unknown tensor encoder\.layers\.1\.fc1\.bias"),
    "another shape": (shape(f"{LAYER}fc2.bias", 31), r"layers\.0\.fc2\.bias is \[31\].* asks for \[32\]"),
    "a shape as the configuration": (change_model(encoder_ffn_embed_dim=65), r"fc1\.weight is \[64, 32\].*\[65, 32\]"),
    "a huge width": (change_model(encoder_embed_dim=1 << 20), r"is \[.*asks for \["),
    "a huge width by a tensor": (many_layers, r"asks for \["),
    "an impossible width": (change_model(encoder_embed_dim=1 << 62), "asks for impossible sizes"),
    "a billion layers": (change_model(encoder_layers=10**9), "asks for 1000000004 layers and blocks"),
    "a billion layers by a tensor's name": (
        lambda c: (shape(f"encoder.layers.{10**9}.fc1.bias", 1)(c), c["cfg"]["model"].pop("encoder_layers")),
        "unknown tensor|lacks",
    ),
    "text for a number": (change_model(encoder_layers="many"), "encoder_layers=many must be a whole number"),
    "text for a size that may be 0": (change_model(final_dim="wide"), "final_dim=wide must be a whole number"),
    "a list for a number": (change_model(encoder_embed_dim=[1]), r"encoder_embed_dim=\[1\] must be a whole number"),
    "text and no heads": (
        lambda c: c["cfg"].update(model={"encoder_embed_dim": "wide"}), "encoder_embed_dim=wide must be",
    ),
    "two lines for a choice": (change_model(modality_fuse="a\nb"), r"modality_fuse=a\\nb is not one of"),
    "heads that do not divide": (change_model(encoder_attention_heads=5), "must be a multiple of"),
    "another activation": (change_model(activation_fn="re\nlu"), r"activation_fn=re\?lu; only activation_fn=gelu"),
    "classes that do not fit": (
        lambda c: c.update(task_state={"dictionaries": [7]}), "a dictionary in its task_state has no symbols",
    ),
    "no tensor": (put("a", 1), "under 'model' there is something that is not a tensor: a"),
    "no name": (lambda c: c["model"].update({3: torch.zeros(1)}), "not a tensor: a key of type int"),
    "no state dict": (replace(model=[1]), "it has no state dict under 'model'"),
    "an empty state dict": (replace(model={}), "it is not a whole AV-HuBERT model"),
    "a configuration that is text": (replace(cfg="base"), "is not made of keys and values"),
    "nested without end": (
        lambda c: c["cfg"].update(me=c["cfg"]), "configuration is nested without end",
    ),
    "a huge configuration": (
        lambda c: c["cfg"].update(me=["x" * 100_000] * 200), "nested without end or huge",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*attention heads:UserWarning")
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_file_is_named(name: str, content: dict[str, Any], tmp_path: Path) -> None:
    change, sentence = WRONG[name]
    change(content)
    torch.save(content, tmp_path / "bad.pt")
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=sentence) as raised:
        convert(tmp_path / "bad.pt", tmp_path / "back")
    assert str(tmp_path / "bad.pt") in str(raised.value)
    assert str(raised.value).isprintable()
    assert files(tmp_path) == before


WRONG_RECOGNIZERS: dict[str, tuple[Callable[[dict], Any], str]] = {
    "no tokenizer": (lambda c: None, "is a recognizer without its tokenizer"),
    "missing": (drop("decoder.layers.1.fc1.bias"), r"lacks tensor decoder\.layers\.1\.fc1\.bias"),
    "missing in the encoder": (drop(f"{W2V}encoder.layer_norm.bias"), rf"lacks tensor {W2V}encoder\.layer_norm\.bias"),
    "another shape": (shape("decoder.layer_norm.bias", 3), r"decoder\.layer_norm\.bias is \[3\].* asks for \[32\]"),
    "no decoder": (drop("decoder.embed_tokens.weight"), "no attention decoder"),
    "an output embedding": (shape("decoder.embed_out", 2), r"an output embedding of its own \(decoder\.embed_out\)"),
    "a billion layers": (change_model(decoder_layers=10**9), "layers and blocks"),
    "post-norm decoder": (change_model(decoder_normalize_before=False), "decoder_normalize_before=False; only"),
    "learned positions": (change_model(decoder_learned_pos=True), "decoder_learned_pos=True; only"),
    "a task that is text": (lambda c: c["cfg"].update(task="x"), "is a recognizer without its tokenizer"),
    "heads that are text": (change_model(decoder_attention_heads="x", w2v_args=None), "attention_heads=x must be"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", WRONG_RECOGNIZERS)
def test_what_is_wrong_with_a_recognizer_is_named(
    name: str, recognizer_content: dict[str, Any], tmp_path: Path
) -> None:
    change, sentence = WRONG_RECOGNIZERS[name]
    change(recognizer_content)
    torch.save(recognizer_content, tmp_path / "bad.pt")
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=sentence) as raised:
        convert(tmp_path / "bad.pt", tmp_path / "back")
    assert str(raised.value).isprintable()
    assert files(tmp_path) == before


def test_what_the_original_never_learned_is_no_left_over(recognizer_content: dict[str, Any], tmp_path: Path) -> None:
    junk = {"decoder.version": torch.tensor([3.0]), "decoder.embed_positions._float_tensor": torch.zeros(1)}
    junk |= {f"{W2V}final_proj.weight": torch.zeros(8, 32), f"{W2V}final_proj.bias": torch.zeros(8)}
    recognizer_content["model"] |= junk
    torch.save(recognizer_content, tmp_path / "a.pt")
    loaded = fairseq.load(tmp_path / "a.pt")
    assert isinstance(loaded, Recognizer)
    assert loaded.tokenizer is None
    assert same(loaded.state_dict(), weights(tmp_path / "finetuned"))


def test_tensors_that_share_numbers(content: dict[str, Any], tmp_path: Path) -> None:
    """Tied weights are read; a small file whose tensors all show the same numbers is not a reason to take memory."""
    tensors = content["model"]
    tensors[f"{LAYER}self_attn.k_proj.weight"] = tensors[f"{LAYER}self_attn.q_proj.weight"]
    torch.save(content, tmp_path / "a.pt")
    encoder = fairseq.load(tmp_path / "a.pt")
    assert isinstance(encoder, AVHubert)
    attention = encoder.encoder.layers[0].attention
    assert torch.equal(attention.k_proj.weight, attention.q_proj.weight)
    attention.k_proj.weight.data.zero_()
    assert attention.q_proj.weight.any()  # each has its own
    numbers = torch.zeros(1 << 18)
    content["model"] |= {f"more{number}": numbers for number in range(9)}
    torch.save(content, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"b\.pt is refused: its tensors share their numbers"):
        fairseq.load(tmp_path / "b.pt")


# --------------------------------------------------------------------------- places
@pytest.fixture
def checkpoint(pretrained: Callable[..., Path], tmp_path: Path) -> Path:
    to_fairseq(pretrained(), tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_convert_writes_over_nothing(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    before = files(tmp_path)
    for target in ("folder", "file"):
        with pytest.raises(ConfigError, match=f"{target} exists already"):
            convert(checkpoint, tmp_path / target)
    assert files(tmp_path) == before
    assert files(tmp_path / "folder") == ["mine.txt"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_to_fairseq_writes_over_nothing(checkpoint: Path, tmp_path: Path) -> None:
    before = checkpoint.read_bytes()
    with pytest.raises(ConfigError, match=r"a\.pt exists already"):
        to_fairseq(tmp_path / "pretrained", checkpoint)
    assert checkpoint.read_bytes() == before
    assert files(tmp_path) == ["a.pt", "pretrained"]


def test_places_that_cannot_be_written(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for write in (
        lambda target: convert(checkpoint, target),
        lambda target: to_fairseq(tmp_path / "pretrained", target),
    ):
        with pytest.raises(ConfigError, match="cannot write to the output folder") as raised:
            write(tmp_path / "file" / "below")
        assert "\n" not in str(raised.value)
    assert files(tmp_path) == ["a.pt", "file", "pretrained"]


def test_folders_above_are_made(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "one" / "two" / "back")
    to_fairseq(tmp_path / "one" / "two" / "back", tmp_path / "three" / "four" / "b.pt")
    assert files(tmp_path / "one" / "two") == ["back"]
    assert files(tmp_path / "three" / "four") == ["b.pt"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: (d / "config.json").unlink(),
        lambda d: (d / "model.safetensors").write_bytes(b"x" * 40),
        lambda d: (d / "tokenizer.model").unlink(),
        lambda d: (d / "tokenizer.model").write_bytes(b"x" * 40),
        lambda d: (d / EXTRAS).write_bytes(b"x" * 40),
    ],
    ids=["no config", "weights", "no tokenizer", "tokenizer", "kept"],
)
def test_to_fairseq_of_a_damaged_directory(
    damage: Callable[[Path], Any], finetuned: Callable[..., Path], tmp_path: Path
) -> None:
    damage(finetuned())
    with pytest.raises(AvhubertError, match="finetuned") as raised:
        to_fairseq(tmp_path / "finetuned", tmp_path / "a.pt")
    assert isinstance(raised.value, CheckpointError)
    assert "\n" not in str(raised.value)
    assert files(tmp_path) == ["finetuned"]


def test_there_and_back_again_keeps_what_our_model_has_no_place_for(
    finetuned: Callable[..., Path], tmp_path: Path
) -> None:
    """The second file has the first one's configuration, dictionaries and unused tensors, not ones made anew."""
    to_fairseq(finetuned(), tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "back")
    to_fairseq(tmp_path / "back", tmp_path / "b.pt")
    first, second = fairseq.read(tmp_path / "a.pt"), fairseq.read(tmp_path / "b.pt")
    assert same(first.tensors, second.tensors)
    assert (first.cfg, first.dictionaries, first.words) == (second.cfg, second.dictionaries, second.words)
    assert first.words is not None
    assert first.words["symbols"][:4] == list(SPECIAL_SYMBOLS)
    assert (tmp_path / "back" / EXTRAS).is_file()


def test_a_folder_is_no_published_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(CheckpointError, match=r"model is a folder, not a published checkpoint .*--to-fairseq"):
        convert(tmp_path / "model", tmp_path / "back")
    assert not (tmp_path / "back").exists()
