"""Inference on a CPU: tensors that follow from the weights are computed once, and products use packed weights.

Both apply only where no gradient is recorded and nothing is traced. The numbers are those of the plain computation, up
to rounding, and depend on nothing but inputs and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


def _has_packed_products() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


_PACKS = {
    torch.float32: _has_packed_products(),
    torch.bfloat16: _has_packed_products() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
}


def applies(tensor: Tensor) -> bool:
    """Whether a computation with `tensor` may use this module: on a CPU, without gradients, not traced."""
    return tensor.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def product_type(x: Tensor) -> torch.dtype:
    """The number format of products with x: autocast's, else that of x."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


class Derived(Generic[T]):
    """A value that is computed from tensors, and kept until one of them changes.

    PyTorch counts most changes of a tensor, but not those by a fused optimizer or through `tensor.data`. So modules
    with such values are of the class `Keeper`, which forgets them when training starts, and our optimizer counts its
    own changes. Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self._stamp: tuple[Any, ...] = ()
        self._sources: tuple[Tensor, ...] = ()
        self._value: T | None = None

    def get(self, sources: Sequence[Tensor], dtype: torch.dtype, compute: Callable[[], T]) -> T:
        """The value.

        Args:
            sources: the tensors that it follows from.
            dtype: its number format.
            compute: computes it.
        """
        if not all(type(source) in (Tensor, nn.Parameter) and not source.is_inference() for source in sources):
            return compute()
        stamp = (dtype, *((id(source), source._version, source.data_ptr()) for source in sources))
        value = self._value
        if value is None or stamp != self._stamp:
            value = compute()
            self._value, self._stamp, self._sources = value, stamp, tuple(sources)
        return value

    def clear(self) -> None:
        """Forget the value."""
        self._stamp, self._sources, self._value = (), (), None

    def __deepcopy__(self, memo: dict[int, Any]) -> Derived[T]:
        return Derived()

    def __reduce__(self) -> tuple[type[Derived[T]], tuple[()]]:
        return Derived, ()


class Keeper(nn.Module):
    """A module with attributes of the class `Derived`."""

    def train(self, mode: bool = True) -> Self:
        """Set training mode and forget what follows from the weights, which will change; or set evaluation mode."""
        if mode:
            for value in vars(self).values():
                if isinstance(value, Derived):
                    value.clear()
        return super().train(mode)


Packed = Derived[tuple[Tensor, Tensor | None]]  # matrix and bias


def product(x: Tensor, weight: Tensor, bias: Tensor | None, packed: Packed, pack_fp32: bool = True) -> Tensor:
    """Compute `F.linear(x, weight, bias)`, for inference on a CPU with packed weights.

    The weights are laid out once as the product reads them, and in the number format of autocast.

    Args:
        x: [..., inputs].
        weight: [outputs, inputs].
        bias: [outputs] or None.
        packed: keeps the packed weights.
        pack_fp32: whether to pack in fp32.
    """
    dtype = product_type(x) if applies(x) else torch.float64
    wanted = dtype == torch.bfloat16 or (pack_fp32 and x.numel() > x.shape[-1])  # one row only waits for memory
    if not (wanted and _PACKS.get(dtype, False) and weight.dtype == torch.float32):
        return F.linear(x, weight, bias)

    def pack() -> tuple[Tensor, Tensor | None]:
        shift = None if bias is None else bias.detach().to(dtype)
        return torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype), None), shift

    matrix, shift = packed.get((weight,) if bias is None else (weight, bias), dtype, pack)
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(dtype), matrix, shift, "none", [], "")
    return result


class Linear(Keeper, nn.Linear):
    """`nn.Linear` whose weights are packed for inference on a CPU.

    Packed weights take as much memory again. fp32 weights are packed only in the decoder: with the few rows of a
    search, the product then takes half of the time.

    Attributes:
        pack_fp32: whether to pack fp32 weights.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, pack_fp32: bool = False) -> None:
        super().__init__(inputs, outputs, bias)
        self.pack_fp32 = pack_fp32
        self._packed: Packed = Packed()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: [..., inputs] → [..., outputs]."""
        if self.training:
            return super().forward(x)
        return product(x, self.weight, self.bias, self._packed, self.pack_fp32)
