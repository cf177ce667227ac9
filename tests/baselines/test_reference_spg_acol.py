"""ACoL and SPG against the wsolevaluation benchmark's networks and steps, written out from plain torch layers.

To be quick, the heads have an eighth of the benchmark's channels. Both sides have the same weights and draws.
"""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from reference_networks import Pools, inception_v3, outputs, pairs, resnet50, share_weights, vgg16
from torch import Tensor, nn
from torch.nn import functional as F
from zero_values import zero_initial_values

from eil.methods import base
from eil.methods.base import Targets
from eil.methods.head import min_max

CLASSES = 3
SEED_SIDE = 40  # the benchmark's 224, at any size of the input
XAVIER: dict[str, Any] = {"head_init": "xavier"}
TRUNKS = {"vgg16": vgg16, "resnet50": resnet50, "inception_v3": inception_v3}
CHANNELS = {"vgg16": 512, "resnet50": 2048, "inception_v3": 768}


def trunk(backbone: str, stride: int, pools: Pools) -> nn.ModuleDict:
    with zero_initial_values():  # ours are copied
        return vgg16(stride, pools) if backbone == "vgg16" else TRUNKS[backbone](stride)


def scores(before: int, widths: tuple[int, ...]) -> nn.Sequential:
    """3x3 convolutions with ReLU, then one of 1x1 to classes."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.Conv2d(before, CLASSES, 1))


def of_class(maps: Tensor, labels: Tensor) -> Tensor:
    return maps[torch.arange(len(labels)), labels]  # (B, H, W)


def scaled(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


# ACoL


class ReferenceACoL(nn.Module):
    """Two heads on the last features; A's map of the label erases for B, in testing too."""

    def __init__(self, backbone: str, stride: int, threshold: float) -> None:
        super().__init__()
        self.trunk = trunk(backbone, stride, "acol")
        self.average, self.threshold = backbone == "vgg16", threshold
        self.a, self.b = (scores(CHANNELS[backbone], (128, 128)) for _ in range(2))

    def both(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = list(outputs(self.trunk, images).values())[-1]
        if self.average:
            x = F.avg_pool2d(x, 3, 1, 1)
        a = self.a(x)
        erase = scaled(of_class(a, labels).detach()) >= self.threshold
        return a, self.b(torch.where(erase[:, None], 0.0, x))

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        a, b = (F.cross_entropy(x.mean((2, 3)), labels) for x in self.both(images, labels))
        return {"first": a, "second": b, "total": a + b}

    def maps(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.both(images, labels)
        return a.mean((2, 3)), torch.maximum(scaled(of_class(a, labels)), scaled(of_class(b, labels)))

    def layers(self) -> list[nn.Module]:
        return [self.trunk, self.a, self.b]


# SPG

# B1 reads, B2 reads, widths of the classifier, of B and of C.
SPG_LAYOUT: dict[tuple[str, int], tuple[str, str, tuple[int, ...], int, int]] = {
    ("vgg16", 16): ("pool4", "conv5", (64, 64), 64, 64),
    ("vgg16", 8): ("conv4", "conv5", (64, 64), 64, 64),
    ("resnet50", 16): ("layer3_0", "layer3_5", (), 128, 64),
    ("resnet50", 8): ("layer3_0", "layer3_5", (), 128, 64),
    ("inception_v3", 16): ("maxpool3", "Mixed_6d", (128, 128), 64, 64),
    ("inception_v3", 8): ("Mixed_5d", "Mixed_6d", (128, 128), 64, 64),
}


class ReferenceSPG(nn.Module):
    """The classifier, B1 and B2 on earlier features, C on the classifier's."""

    def __init__(self, backbone: str, stride: int, thresholds: Mapping[str, tuple[float, float]]) -> None:
        super().__init__()
        self.trunk = trunk(backbone, stride, "spg")
        self.tap1, self.tap2, widths, b, c = SPG_LAYOUT[backbone, stride]
        last = CHANNELS[backbone]
        tapped = {"vgg16": (512, 512), "resnet50": (1024, 1024), "inception_v3": (288, 768)}[backbone]
        self.dropout = 0.5 if backbone == "inception_v3" else 0.0
        self.thresholds = thresholds
        self.a = scores(last, widths)
        self.b1, self.b2 = (nn.Sequential(nn.Conv2d(k, b, 3, padding=1), nn.ReLU()) for k in tapped)
        self.shared = nn.Sequential(nn.Conv2d(b, b, 3, padding=1), nn.ReLU(), nn.Conv2d(b, 1, 1))
        c_in = widths[-1] if widths else last
        self.c = nn.Sequential(nn.Conv2d(c_in, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, 1, 1))

    def heads(self, images: Tensor) -> dict[str, Tensor]:
        stages = outputs(self.trunk, images)
        x = list(stages.values())[-1]
        for layer in self.a:
            if isinstance(layer, nn.Conv2d) and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            if layer is self.a[-1]:
                c = self.c(x)
            x = layer(x)
        b1, b2 = self.shared(self.b1(stages[self.tap1])), self.shared(self.b2(stages[self.tap2]))
        return {"a": x, "b1": b1, "b2": b2, "c": c}

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        heads = self.heads(images)
        large = {
            name: F.interpolate(x, (SEED_SIDE, SEED_SIDE), mode="bilinear", align_corners=False)
            for name, x in heads.items()
        }
        attention = scaled(of_class(large["a"], labels))
        b1, b2, c = (large[name][:, 0] for name in ("b1", "b2", "c"))
        parts = {"classification": F.cross_entropy(heads["a"].mean((2, 3)), labels)}
        teachers = {"b2": (attention, b2), "b1": (b2.sigmoid(), b1), "c": ((b1.sigmoid() + b2.sigmoid()) / 2, c)}
        for name, (teacher, pupil) in teachers.items():
            target = torch.stack([self.seeds(t, *self.thresholds[name]) for t in teacher.detach()])
            used = target != 255
            parts[name] = F.binary_cross_entropy_with_logits(pupil[used], target[used]) if used.any() else 0 * c.sum()
        return parts | {"total": sum(parts.values(), torch.zeros(()))}

    @staticmethod
    def seeds(teacher: Tensor, high: float, low: float) -> Tensor:
        """1, 0 or 255 (unknown) for each pixel of one image, the background written last."""
        target = torch.full_like(teacher, 255)
        foreground = teacher > high
        if float(foreground.sum()) < 30 / 224**2 * foreground.numel():
            foreground = teacher > 0.7 * teacher.max()
        target[foreground] = 1
        target[teacher < low] = 0
        return target

    def maps(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        a = self.heads(images)["a"]
        return a.mean((2, 3)), scaled(of_class(a, labels))

    def layers(self) -> list[nn.Module]:
        return [self.trunk, self.a, self.b1, self.b2, self.shared, self.c]


def network(method: str, backbone: str) -> dict[str, Any]:
    """Options of the network in the benchmark's layout."""
    if backbone == "inception_v3":
        options = XAVIER | {"stem": "wsoleval", "normalisation": "imagenet"}
        return options | {"head_dropout": 0.5} if method == "spg" else options
    if backbone == "vgg16":
        return XAVIER | {"pools": {"acol": "3x3", "spg": "3x3-pool4"}[method]}
    return {"head_init": "he" if method == "acol" else "xavier"}


def both(method: str, backbone: str, stride: int) -> tuple[base.Method, Any]:
    """Our method and the reference, of the same weights, in float64."""
    reference: ReferenceACoL | ReferenceSPG
    if method == "acol":
        settings: dict[str, Any] = {"average_pool": backbone == "vgg16", "test_class": "given", "threshold": 0.7}
        settings["width"] = 128
        reference = ReferenceACoL(backbone, stride, 0.7)
    else:
        tap1, tap2, widths, b, c = SPG_LAYOUT[backbone, stride]
        thresholds = {"b2": (0.7, 0.05), "b1": (0.5, 0.49), "c": (0.82, 0.59)}  # of C: no foreground, so a conflict
        settings = {"taps": (tap1, tap2), "head_widths": widths, "b_width": b, "c_width": c, "c_reads": "head"}
        settings |= {"seed_side": SEED_SIDE} | {f"seeds_{name}": pair for name, pair in thresholds.items()}
        reference = ReferenceSPG(backbone, stride, thresholds)
    ours = base.build(
        method, settings, backbone, CLASSES, output_stride=stride, network=network(method, backbone)
    ).double()
    share_weights(layers(ours), reference.double().layers())
    return ours, reference


def layers(ours: Any) -> list[nn.Module]:
    """Ours in the order of the reference's ``layers``."""
    added = [ours.second] if hasattr(ours, "second") else [ours.b1, ours.b2, ours.shared, ours.c]
    return [ours.backbone, ours.head, *added]


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest value of the reference."""
    a, b = a.detach().double().reshape(-1), b.detach().double().reshape(-1)
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


def differences(ours: base.Method, reference: Any, training: bool) -> dict[str, float]:
    """Logits, maps, each loss and the worst gradient of one step."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 48, 48, generator=generator, dtype=torch.float64)
    targets = Targets(torch.tensor([2, 0]))
    ours.train(training).zero_grad()
    reference.train(training).zero_grad()
    torch.manual_seed(2)
    expected = reference.losses(images, targets.labels)
    torch.manual_seed(2)
    parts = ours.loss(images, targets)
    assert all(float(part.detach()) > 0 for part in expected.values())
    found = {name: difference(parts[name], part) for name, part in expected.items()}

    expected["total"].backward()
    parts["total"].backward()
    matched = [(own.grad, theirs.grad) for own, theirs in pairs(layers(ours), reference.layers())]
    largest = max(float(theirs.abs().max()) for _, theirs in matched if theirs is not None)
    found["gradients"] = 0.0
    for own, theirs in matched:
        assert own is not None and theirs is not None
        if float(theirs.abs().max()) > 1e-9 * largest:  # some have no gradient but noise
            found["gradients"] = max(found["gradients"], difference(own, theirs))

    if not training:
        with torch.no_grad():
            logits, maps = reference.maps(images, targets.labels)
            own_logits, own_maps = ours.maps(images, targets.labels)
        found |= {"logits": difference(own_logits, logits), "map": difference(min_max(own_maps), scaled(maps))}
    return found


@pytest.mark.parametrize("stride", [16, 8])
@pytest.mark.parametrize("backbone", ["vgg16", "resnet50", "inception_v3"])
@pytest.mark.parametrize("method", ["acol", "spg"])
def test_one_step_is_the_benchmarks(method: str, backbone: str, stride: int) -> None:
    ours, reference = both(method, backbone, stride)
    for training in (True, False):
        found = differences(ours, reference, training)
        assert all(value < 1e-5 for value in found.values()), found
