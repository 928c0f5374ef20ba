"""Devices and precision: where a model computes, in which number format, and how tensors get there and back.

The rule: a model call gets all its tensors on one device. `to_device` moves whatever a model call needs, `to_host`
reads results back; nothing else in the package moves tensors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from avhubert.errors import ConfigError

T = TypeVar("T")

DEVICES = ("auto", "cpu", "cuda", "cuda:N", "mps")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AUTO = "auto"

_log = logging.getLogger(__name__)


# --------------------------------------------------------------------------- choice
@dataclass(frozen=True)
class Compute:
    """A device and the number format of matrix products and convolutions on it."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which to call a model: nothing for fp32, torch's autocast otherwise."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @property
    def precision(self) -> str:
        """The name of the number format."""
        return next(name for name, dtype in PRECISIONS.items() if dtype == self.dtype)

    def __str__(self) -> str:
        if self.device.type == "cuda":
            return f"{self.device} ({torch.cuda.get_device_name(self.device)}), {self.precision}"
        return f"{self.device}, {self.precision}"


def resolve(device: str | torch.device = AUTO, precision: str = AUTO) -> Compute:
    """The device and precision to compute with.

    Args:
        device: `auto` takes a CUDA GPU if there is one, else Apple's GPU (mps), else the CPU.
        precision: `auto` takes bf16 on a CUDA GPU that computes it in hardware, else fp32. The other values set the
            format of matrix products and convolutions; weights, sums and losses stay in fp32.

    Raises:
        ConfigError: the device is unknown or not on this machine; the device does not have the precision.
    """
    chosen = resolve_device(device)
    compute = Compute(chosen, resolve_precision(precision, chosen))
    if AUTO in (str(device), precision):
        _log_choice(str(compute))
    return compute


def resolve_device(name: str | torch.device = AUTO) -> torch.device:
    """The torch device of a name in DEVICES.

    Raises:
        ConfigError: the name is unknown, or the device is not on this machine.
    """
    if isinstance(name, str) and name == AUTO:
        return torch.device("cuda" if _cuda_count() else "mps" if _has_mps() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"unknown device '{name}'; choose one of: {', '.join(DEVICES)}")
    if device.type == "cpu" or (device.type == "mps" and _has_mps()):
        return device
    if device.type == "cuda" and (device.index or 0) < _cuda_count():
        return device
    raise ConfigError(f"device '{name}' is not on this machine; it has: {', '.join(available())}")


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format of a name in PRECISIONS, or `auto`, on `device`.

    Raises:
        ConfigError: the name is unknown, or the device does not compute in this format.
    """
    if name == AUTO:
        return torch.bfloat16 if device.type == "cuda" and _has_bf16(device) else torch.float32
    if name not in PRECISIONS:
        raise ConfigError(f"unknown precision '{name}'; choose one of: {', '.join([AUTO, *PRECISIONS])}")
    if name == "fp16" and device.type == "cpu":
        raise ConfigError("precision fp16 needs a GPU; on the CPU choose fp32 or bf16")
    if name == "bf16" and device.type == "cuda" and not _has_bf16(device):
        raise ConfigError(f"{torch.cuda.get_device_name(device)} does not compute in bf16; choose fp32 or fp16")
    return PRECISIONS[name]


def float64_device(device: torch.device) -> torch.device:
    """`device`, or the CPU in place of Apple's GPU, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def training_precision(name: str, device: str) -> str:
    """Lightning's name of the precision of a training on a device of type `device`.

    `auto` takes bf16-mixed on a CUDA GPU that computes it in hardware, 16-mixed (fp16 with loss scaling) on an older
    one, else 32-true.

    Raises:
        ConfigError: fp16 without a CUDA GPU.
    """
    if name == AUTO:
        if device != "cuda":
            return "32-true"
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if name == "16-mixed" and device != "cuda":
        raise ConfigError("train.precision=16-mixed needs a CUDA device; give train.precision=32-true or bf16-mixed")
    return name


def available() -> list[str]:
    """Names of the devices on this machine."""
    return ["cpu", *(f"cuda:{index}" for index in range(_cuda_count())), *(["mps"] if _has_mps() else [])]


def is_missing_operation(error: BaseException) -> bool:
    """Whether an error says that Apple's GPU lacks an operation of the model."""
    return isinstance(error, NotImplementedError) and "mps" in str(error).lower()


MISSING_OPERATION = (
    "Apple's GPU (mps) lacks an operation that this model needs; use the CPU instead (--device cpu, or "
    "train.accelerator=cpu), or set PYTORCH_ENABLE_MPS_FALLBACK=1"
)


OUT_OF_MEMORY = (
    "the memory of this machine or GPU does not suffice; close other programs, give smaller batches, fewer workers or "
    "shorter recordings, or choose another device"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on a CPU only the messages of torch and oneDNN show it."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    messages = ("allocate memory", "could not create a primitive")
    return isinstance(error, RuntimeError) and any(message in str(error) for message in messages)


def _cuda_count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _has_bf16(device: torch.device) -> bool:
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


_logged: set[str] = set()


def _log_choice(text: str) -> None:
    """Once per process and choice: a server or a folder of files would repeat it."""
    if text not in _logged:
        _logged.add(text)
        _log.info("computing on %s", text)


# --------------------------------------------------------------------------- moving tensors
def to_device(value: T, device: torch.device | str, dtype: torch.dtype | None = None) -> T:
    """`value` with every tensor in it on `device`: a tensor, or a list, tuple, dict or dataclass that holds tensors.

    Args:
        value: what a model call needs. Anything that is not a tensor stays as it is.
        device: the target; copies from pinned memory do not wait.
        dtype: of floating-point tensors; None keeps theirs.
    """
    moved: Any = value
    if isinstance(value, Tensor):
        moved = value.to(device, dtype if value.is_floating_point() else None, non_blocking=True)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_device(getattr(value, f.name), device, dtype) for f in dataclasses.fields(value) if f.init}
        moved = dataclasses.replace(value, **fields)
    elif isinstance(value, Mapping):
        moved = {name: to_device(item, device, dtype) for name, item in value.items()}
    elif isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        moved = type(value)(to_device(item, device, dtype) for item in value)
    return cast(T, moved)


def to_host(tensor: Tensor) -> Tensor:
    """`tensor` on the CPU, without gradient: the only way to read values, since it waits for the device."""
    return tensor.detach().cpu()
