"""One forward pass for all map extractors of a network, and one backward pass through the layers that they share.

The layers before the first stage that is read run without a graph. Gradients are asked of features alone, so that
parameters get none. No hook stays on a module.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from eil.methods.base import Method
from eil.methods.extractor import Evidence, Extractor, Gradients

Features = dict[str | None, Tensor]  # by stage; None: those that the head pools
_RELU = {F.relu, F.relu_, F.relu6, F.hardtanh, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


def extract(
    model: Method, extractors: Mapping[str, Extractor], images: Tensor, classes: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and the maps of every extractor; the caller's grad mode does not matter.

    Args:
        model: in evaluation mode; its parameters may be frozen.
        extractors: by name, built for this model.
        images: (B, 3, H, W), normalised.
        classes: class of each wanted map, (B,) int64.

    Returns:
        Logits (B, C), those of ``model.maps``, and a map (B, h, w) float32 for each name.
    """
    stages = sorted({each.at for each in extractors.values() if each.at is not None}, key=model.backbone.index)
    needed: dict[Gradients, set[str | None]] = {}  # kind -> stages
    for each in extractors.values():
        if each.gradients != "none":
            needed.setdefault(each.gradients, set()).add(each.at)
    found = {}
    with torch.inference_mode(False):
        classes = classes.clone()  # a tensor of inference mode cannot be part of a graph
        relu = GuidedReLU()
        with relu if "guided" in needed else nullcontext(), _uncached_autocast(images.device.type):
            features, logits = _forward(model, images, stages, bool(needed))
        gradients = dict(_gradients(logits, classes, features, needed, relu))
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            weight = model.head.classifier.weight.detach().float()
            for name, each in extractors.items():
                slopes = None if each.gradients == "none" else gradients[each.gradients, each.at].float()
                read = features[each.at].detach().float()
                found[name] = each.maps(Evidence(read, slopes, logits.detach().float(), weight, classes))
    return logits.detach(), found


def fit(model: Method, extractors: Iterable[Extractor], classes: Iterable[tuple[int, Iterable[Tensor]]]) -> None:
    """Let extractors learn from training images, class by class, so that they need to hold one class at a time.

    Args:
        model: in evaluation mode.
        extractors: built for this model; those that need no fit are left alone.
        classes: each label with batches of its images, (B, 3, H, W), normalised; batches can be read more than once.
    """
    learning = [each for each in extractors if each.needs_fit]
    for label, batches in classes if learning else ():
        for each in learning:
            each.fit(label, (_read(model, images, each.at) for images in batches))


@torch.no_grad()
def _read(model: Method, images: Tensor, stage: str | None) -> Tensor:
    """Features of a stage, or those that the head pools, (B, 3, H, W) -> (B, K, h, w) float32."""
    features = model.backbone.forward_stages(images, stop=stage)
    return model.backbone.grid(features if stage is not None else model.head.features(features)).float()


def _uncached_autocast(device: str) -> torch.autocast:
    """The caller's autocast without its cache, which may hold weights of inference mode, of no use for a graph."""
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return torch.autocast(device, dtype, enabled, cache_enabled=False)


def _forward(model: Method, images: Tensor, stages: Sequence[str], graph: bool) -> tuple[Features, Tensor]:
    """Features of the stages and those that the head pools, and logits; with a graph from the first stage on."""
    features: Features = {}
    with torch.no_grad():
        x = model.backbone.forward_stages(images, stop=stages[0] if stages else None).clone()
    x.requires_grad_(graph)
    with torch.set_grad_enabled(graph):
        for stage, stop in itertools.zip_longest(stages, stages[1:]):
            features[stage] = _behind_hook(x)
            x = model.backbone.forward_stages(features[stage].clone(), stage, stop)  # the next layer may work in place
        features[None] = _behind_hook(model.head.features(x))
        return features, model.head.classify(features[None])


def _behind_hook(x: Tensor) -> Tensor:
    """A view: the gradient by features is that before the hook of a ReLU that ends their stage."""
    return x.view_as(x)


def _gradients(
    logits: Tensor,
    classes: Tensor,
    features: Features,
    needed: Mapping[Gradients, set[str | None]],
    relu: "GuidedReLU",
) -> Iterator[tuple[tuple[Gradients, str | None], Tensor]]:
    """Of each kind, the gradients of each image's class logit by the features of its stages, in one backward pass."""
    if not needed:
        return
    # Images do not meet in evaluation mode, so that the gradient of the sum holds each image's own.
    score = logits.gather(1, classes[:, None]).sum()
    for k, (kind, stages) in enumerate(needed.items(), 1):
        relu.guided = kind == "guided"
        found = torch.autograd.grad(score, [features[stage] for stage in stages], retain_graph=k < len(needed))
        yield from (((kind, stage), each) for stage, each in zip(stages, found, strict=True))


class GuidedReLU(TorchFunctionMode):
    """Guided backpropagation (Springenberg et al., 2015): while ``guided``, ReLUs stop gradients below 0.

    It sees each ReLU and ReLU6 that runs inside the block, be it a module, a function or in place.
    """

    guided = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch; of a ReLU's output keep a hook, which is gone with the graph."""
        out = func(*args, **(kwargs or {}))
        if func in _RELU and out.requires_grad:
            out.register_hook(lambda gradient: gradient.clamp(min=0) if self.guided else gradient)
        return out
