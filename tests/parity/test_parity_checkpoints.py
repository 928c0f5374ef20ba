"""The published tiny checkpoints: read, written back and read again; and the same in every form their cfg comes in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from avhubert.checkpoints.fairseq.config import PublishedSettings as _Settings
from avhubert.checkpoints.fairseq.names import ENCODER
from avhubert.checkpoints.fairseq.objects import to_plain as _plain
from avhubert.checkpoints.fairseq.read import build, convert, read
from avhubert.checkpoints.fairseq.write import to_fairseq
from avhubert.checkpoints.pickles import Record, TensorRecord
from avhubert.checkpoints.torchfile import TorchFile

MAIN = ("pretrain_ckpt.pt", "finetuned_ckpt.pt")
Golden = Callable[[str], Path]


@pytest.fixture(scope="module", params=MAIN)
def there_and_back(request: pytest.FixtureRequest, golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `name` (the golden file's stem), `a` (its directory), `b.pt` (made of it), `c` (its directory)."""
    folder = tmp_path_factory.mktemp("checkpoints")
    source = golden(request.param)
    assert convert(source, folder / "a") == []
    assert to_fairseq(folder / "a", folder / "b.pt") == []
    assert convert(folder / "b.pt", folder / "c") == []
    (folder / "name").write_text(source.stem)
    return folder


@pytest.fixture
def original(there_and_back: Path, golden: Golden) -> Path:
    return golden(f"{(there_and_back / 'name').read_text()}.pt")


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


def test_tensors_are_the_same_after_the_way_back(there_and_back: Path) -> None:
    weights = [load_file(there_and_back / name / "model.safetensors") for name in ("a", "c")]
    assert len(weights[0]) > 180
    assert equal(*weights)
    for name in ("tokenizer.model", "published.safetensors"):
        paths = [there_and_back / folder / name for folder in ("a", "c")]
        assert paths[0].exists() == paths[1].exists()
        assert not paths[0].exists() or paths[0].read_bytes() == paths[1].read_bytes()


def test_names_and_shapes_are_the_published_ones(there_and_back: Path, original: Path, golden: Golden) -> None:
    kind = original.stem.removesuffix("_ckpt")
    lines = golden(f"{kind}_state_names.txt").read_text().splitlines()
    listed = {name: shape for name, shape, _ in (line.split("\t") for line in lines)}
    tensors = TorchFile(there_and_back / "b.pt").content["model"]
    assert {name: str(record.size) for name, record in tensors.items()} == listed


def test_values_are_the_published_ones(there_and_back: Path, original: Path) -> None:
    """Stored in 32 bits, which hold every 16-bit value of the original."""
    first, second = read(original).tensors, read(there_and_back / "b.pt").tensors
    assert first.keys() == second.keys()
    assert any(tensor.dtype == torch.float16 for tensor in first.values())
    for name, tensor in first.items():
        assert second[name].dtype == (torch.float32 if tensor.is_floating_point() else tensor.dtype)
        assert torch.equal(second[name], tensor.to(second[name].dtype)), name


def test_cfg_and_dictionaries_are_the_published_ones(there_and_back: Path, original: Path) -> None:
    first, second = TorchFile(original).content, TorchFile(there_and_back / "b.pt").content
    assert _plain(second["cfg"], "b") == _plain(first["cfg"], "a")
    assert second.keys() == first.keys()
    assert described(second["task_state"]) == described(first["task_state"])


def described(value: Any) -> Any:
    """Records by name and state."""
    if isinstance(value, Record):
        return value.name, described(value.state)
    if isinstance(value, dict):
        return {key: described(item) for key, item in value.items()}
    return [described(item) for item in value] if isinstance(value, list) else value


def test_the_model_of_the_written_file_is_the_same(there_and_back: Path, original: Path) -> None:
    first, second = read(original), read(there_and_back / "b.pt")
    assert (first.model, first.decoder) == (second.model, second.decoder)
    assert equal(build(first).state_dict(), build(second).state_dict())


VARIANTS = {  # → the golden checkpoint with all tensors
    "pretrain_meta_cfg_as_omegaconf.pt": "pretrain_ckpt.pt",
    "finetuned_meta_cfg_as_omegaconf.pt": "finetuned_ckpt.pt",
    "finetuned_meta_plain_cfg_w2v_args_omegaconf.pt": "finetuned_ckpt.pt",
    "finetuned_meta_trainer_natural_no_w2v_args.pt": "finetuned_ckpt.pt",
}
NOT_TOLD = {  # without the pre-trained model's configuration; no tensor of a fine-tuned file tells these
    "encoder_attention_heads",  # assumed and said; here the decoder's, which happens to be right
    "untie_final_proj",  # of the cluster heads, which a recognizer does not have
}


def settings(variant: str, golden: Golden) -> _Settings:
    """The variant's configuration beside the sizes of all tensors."""
    main = TorchFile(golden(VARIANTS[variant])).content["model"]
    content = TorchFile(golden(f"ckpt_variants/{variant}")).content
    kept = {name: record.size for name, record in content["model"].items() if isinstance(record, TensorRecord)}
    sizes = {name: record.size for name, record in main.items()}
    assert kept.items() <= sizes.items()  # it is the same model
    recognizer = any(name.startswith(ENCODER) for name in sizes)
    return _Settings(_plain(content["cfg"], variant), sizes, recognizer, [], Path(variant))


@pytest.mark.filterwarnings("ignore:.*attention heads:UserWarning")
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_form_of_cfg_gives_the_same_model(variant: str, golden: Golden) -> None:
    main = read(golden(VARIANTS[variant]))
    resolved = settings(variant, golden)
    model = resolved.encoder([len(item["symbols"]) for item in main.dictionaries])
    assert resolved.decoder() == main.decoder
    differing = {field.name for field in dataclasses.fields(model)
                 if getattr(model, field.name) != getattr(main.model, field.name)}  # fmt: skip
    if variant.endswith("no_w2v_args.pt"):
        assert differing <= NOT_TOLD
        assert resolved.notes == [
            "layer_norm_first: true, as in every published model",
            "encoder_attention_heads: 4, which the file does not tell",
        ]
    else:
        assert differing == set()
        assert resolved.notes == []


@pytest.mark.parametrize("variant", [name for name in VARIANTS if "no_w2v_args" not in name])
def test_every_form_of_cfg_becomes_the_same_plain_values(variant: str, golden: Golden) -> None:
    """References into other parts of the configuration included, resolved or not."""
    plain = _plain(TorchFile(golden(f"ckpt_variants/{variant}")).content["cfg"], variant)
    main = read(golden(VARIANTS[variant])).cfg
    assert plain.keys() == main.keys()
    assert plain["model"].keys() == main["model"].keys()
    assert plain["task"].keys() == main["task"].keys()
    assert plain["criterion"] == main["criterion"]


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("finetuned")])
def test_every_form_holds_the_same_tokenizer_and_dictionaries(variant: str, golden: Golden) -> None:
    state = described(TorchFile(golden(f"ckpt_variants/{variant}")).content["task_state"])
    main = described(TorchFile(golden(VARIANTS[variant])).content["task_state"])
    if "plain_cfg" in variant:  # that one was written without
        assert main.pop("s2s_tokenizer")
    assert state == main
