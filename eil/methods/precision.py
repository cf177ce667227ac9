"""Parts of a method that must not run in half precision."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """No autocast inside the block; tensors without memory, of which only operations are counted, have none anyway."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
