"""Where cells look, against ../shared/facts/reference-networks.md and against a bright dot."""

import copy

import numpy as np
import pytest
import tiny_vit
import torch
from torch import Tensor, nn

from eil import backbones
from eil.backbones.meta import meta_tensors
from eil.core import registry
from eil.core.cell_grid import CellGrid
from eil.core.settings import IncompatibleSetting, SettingError
from eil.evaluation import maps, protocols
from eil.methods import base, receptive_field
from eil.methods.base import Method
from eil.methods.receptive_field import Unlocated, locate_cells

slow = pytest.mark.slow
# Backbone, output stride, options, method -> pixel of cell 0. Fact sheet, section 1.2; efficientnet_lite0 and the last
# line by hand: "same" padding of an even side puts the centre of a cell one pixel after its stride's first one.
CASES = [
    pytest.param("vgg16", 16, {}, "cam", 7.5, marks=slow),
    ("vgg16", 8, {}, "eil", 3.5),
    pytest.param("vgg16", 16, {"pools": "3x3"}, "acol", 0, marks=slow),
    pytest.param("vgg16", 8, {"pools": "3x3"}, "acol", 0, marks=slow),
    pytest.param("vgg16", 16, {"pools": "3x3-pool4"}, "spg", 3.5, marks=slow),
    ("resnet50", 16, {}, "cam", 0),
    pytest.param("resnet50", 8, {}, "cam", 0, marks=slow),
    pytest.param("inception_v3", 16, {}, "cam", 0, marks=slow),
    ("inception_v3", 8, {}, "cam", 0),
    ("inception_v3", 16, {"stem": "wsoleval", "head_widths": (1024, 1024)}, "cam", 14),
    pytest.param("inception_v3", 8, {"stem": "wsoleval"}, "cam", 6, marks=slow),
    ("efficientnet_lite0", 16, {}, "cam", 15),
    pytest.param("efficientnet_lite0", 32, {}, "cam", 31, marks=slow),
]


def unweighted(name: str, method: str, stride: int, network: dict[str, object]) -> Method:
    """A network without initial values, which take seconds to draw and are of no use here."""
    with meta_tensors():
        model = base.build(method, {}, name, 3, output_stride=stride, network=network)
    return model.to_empty(device="cpu")


@pytest.mark.parametrize(("name", "stride", "network", "method", "first"), CASES)
def test_cells_look_where_the_fact_sheet_says(
    name: str, stride: int, network: dict[str, object], method: str, first: float
) -> None:
    found = locate_cells(unweighted(name, method, stride, network), 224)
    assert found == CellGrid((first, first), (stride, stride))


def test_same_padding_depends_on_the_side() -> None:
    """100 -> 50 -> 25 -> 13 -> 7 cells: an even side moves the centre by 1, 2 and not by 4 and 8 pixels."""
    assert locate_cells(unweighted("efficientnet_lite0", "cam", 16, {}), 100) == CellGrid((3, 3), (16, 16))


@pytest.mark.parametrize("name", registry.available(registry.METHODS))
def test_maps_of_every_method_are_located(name: str) -> None:
    """Fused and scaled maps too; a network and its weights stay as they are."""
    try:
        model = base.build(name, {}, "resnet_small", 3).train()
    except (IncompatibleSetting, SettingError) as reason:
        pytest.skip(str(reason))
    before = copy.deepcopy(model.state_dict())
    assert locate_cells(model, 64) == CellGrid((0, 0), (4, 4))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("name", "off"), [("efficientnet_lite0", 7.5), ("resnet_small", -1.5), ("vgg_small", 0)])
def test_the_map_of_a_bright_dot_has_its_peak_on_the_dot(name: str, off: float) -> None:
    """Drawn by the grid, the peak is off by the known offset; at vgg_small nothing changes, to the last bit."""
    side = 96 if name.endswith("_small") else 448  # the borders clip no field
    model = receptive_field.with_equal_weights(base.build("cam", {}, name, 3))
    cells = locate_cells(model, side)
    row, column = (round(cells.origin[0] + cells.stride[0] * k) for k in (13, 14))
    image = torch.zeros(1, 3, side, side)
    image[:, :, row, column] = 1
    with torch.no_grad(), receptive_field._AveragePooling():
        score_map = receptive_field.of_class_zero(model, image)[0].numpy()
    aligned, grid = (
        maps.prepared(score_map, side, protocols.find(name), cells)
        for name in ("val-threshold-aligned", "val-threshold")
    )
    dot = np.array([row, column])
    if off:
        assert (peak(aligned) == dot).all()
    else:
        np.testing.assert_array_equal(aligned, grid)
    assert (np.abs(dot - off - peak(grid)) <= 0.5).all()


def peak(m: np.ndarray) -> np.ndarray:
    """Row and column of the largest values' middle."""
    return np.argwhere(m >= m.max() - 1e-9).mean(axis=0)


class Detached(Method):
    """Maps without a gradient."""

    def maps(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        logits, found = super().maps(images, classes)
        return logits, found.detach()


class Pixels(Method):
    """A map in the image's own pixels, from elsewhere."""

    def maps(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(images), 3), torch.zeros(len(images), *images.shape[2:])


def test_what_cannot_be_located_says_why() -> None:
    small = backbones.build("vgg_small")
    with pytest.raises(Unlocated, match="no gradient"):
        locate_cells(Detached(small, 3), 32)
    with pytest.raises(Unlocated, match=r"takes no image of 416 x 24 pixels: \w+"):
        locate_cells(base.registry.load(registry.METHODS, "cam")(tiny_vit.grid(), 3), tiny_vit.SIDE)
    assert locate_cells(Pixels(small, 3), 32) == CellGrid((0, 0), (1, 1))


def test_pooling_without_stride_and_biases_change_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=1, padding=1))
    info = backbones.BackboneInfo(non_negative=(), output_strides=(1,))
    model = base.registry.load(registry.METHODS, "cam")(backbones.Backbone("one", {"all": network}, 4, info), 3)
    assert locate_cells(model, 16) == CellGrid((0, 0), (1, 1))
