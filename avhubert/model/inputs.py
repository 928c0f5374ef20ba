"""The inputs of a model call."""

from __future__ import annotations

import torch
from torch import Tensor


def needed(padding_mask: Tensor | None, device: torch.device) -> Tensor | None:
    """The mask on `device`, or None if it masks nothing: attention without a mask is faster."""
    if padding_mask is None or not bool(padding_mask.any()):  # a mask that is still on the CPU is asked without waiting
        return None
    return padding_mask.to(device, non_blocking=True)
