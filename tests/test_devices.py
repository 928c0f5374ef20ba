"""Names of devices and precisions; what moves tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import avhubert
from avhubert.checkpoints.directory import save_model
from avhubert.devices import available, is_out_of_memory, resolve, resolve_device, resolve_precision, to_device, to_host
from avhubert.errors import ConfigError

CPU = torch.device("cpu")

pytestmark = pytest.mark.quick


def test_auto_takes_a_device_of_this_machine() -> None:
    compute = resolve("auto", "auto")
    assert compute.device.type in {name.split(":")[0] for name in available()}
    assert resolve_precision("auto", CPU) == torch.float32


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "tpu:0", "meta"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown device .* choose one of: auto, cpu, cuda"):
        resolve_device(name)


def test_a_device_that_is_missing_is_refused_with_those_present() -> None:
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=rf"device '{missing}' is not on this machine; it has: cpu"):
        resolve_device(missing)


@pytest.mark.parametrize(
    ("name", "message"), [("half", "unknown precision 'half'; choose one of: auto, fp32"), ("fp16", "needs a GPU")]
)
def test_a_precision_that_the_device_lacks_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_precision(name, CPU)


def test_bf16_on_the_cpu_computes_products_in_bf16() -> None:
    with resolve("cpu", "bf16").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with resolve("cpu", "fp32").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_everything_that_holds_tensors_is_moved() -> None:
    @dataclass
    class Carrier:
        tensor: torch.Tensor
        several: list[torch.Tensor]
        named: dict[str, torch.Tensor]
        pair: tuple[torch.Tensor, str]
        missing: torch.Tensor | None = None
        count: int = 3

    x = torch.ones(2)
    moved = to_device(Carrier(x, [x, x], {"x": x}, (x, "text")), "meta", torch.float16)
    assert {t.device.type for t in (moved.tensor, *moved.several, moved.named["x"], moved.pair[0])} == {"meta"}
    assert moved.tensor.dtype == torch.float16
    assert (moved.pair[1], moved.missing, moved.count) == ("text", None, 3)
    assert to_device(torch.ones(2, dtype=torch.int64), "cpu", torch.float16).dtype == torch.int64
    assert not to_host(torch.ones(2, requires_grad=True)).requires_grad


def test_load_takes_a_device_and_a_number_format(small, batch, tmp_path: Path) -> None:
    save_model(tmp_path, small())
    model = avhubert.load(tmp_path, device="cpu", dtype="bf16")
    assert (model.device, model.dtype) == (CPU, torch.bfloat16)
    audio, video, padding_mask = batch
    rough = model.extract_features(audio, video, padding_mask).float()
    exact = avhubert.load(tmp_path).extract_features(audio, video, padding_mask)
    assert (rough - exact)[~padding_mask].abs().mean() < 0.1 * exact[~padding_mask].abs().mean()
    with pytest.raises(ConfigError, match="not on this machine"):
        avhubert.load(tmp_path, device=f"cuda:{torch.cuda.device_count()}")


def test_errors_of_memory_are_told_from_others() -> None:
    ran_out = (
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
    )
    assert all(map(is_out_of_memory, ran_out))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))
