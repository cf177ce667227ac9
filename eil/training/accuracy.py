"""Classification accuracy of a network in training on the images of val, after each epoch."""

import torch
from lightning_fabric import Fabric

from eil.data.augment import Batches
from eil.methods.base import Method


def accuracy(fabric: Fabric, method: Method, batches: Batches) -> float:
    """Share of images whose largest logit is their label's, in 0 to 1.

    It changes nothing but the method's mode, which is evaluation afterwards: no random number is drawn. With several
    processes each computes it on all images.

    Args:
        fabric: for its precision.
        method: not wrapped by Fabric, so that no process waits for another.
        batches: of the images, without augmentation.
    """
    method.eval()
    right = torch.zeros((), dtype=torch.int64, device=fabric.device)
    count = 0
    with torch.inference_mode(), fabric.autocast():
        for batch in batches.in_order():
            logits, _ = method.maps(batch.images, batch.labels)
            right += (logits.argmax(dim=1) == batch.labels).sum()
            count += len(batch.labels)
    return float(right) / count
