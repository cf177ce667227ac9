"""The map extractor DDT against the principal component of all cells, by another decomposition."""

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.extractors.ddt import DDT, first_direction, flip_if_border_mean_high
from eil.methods import base
from eil.methods.shared_pass import extract, fit


@pytest.fixture(scope="module")
def model() -> base.Method:
    return base.build("cam", {}, "resnet_small", 4, seed=3).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_ddt_is_the_principal_component_of_all_cells_of_a_class(model: base.Method, images: Tensor) -> None:
    extractor = DDT(model)
    fit(model, [extractor], [(1, images[:3].split(2)), (2, [images[3:]])])
    _, maps = extract(model, {"": extractor}, images, torch.full((len(images),), 1))
    with torch.no_grad():
        features = model.head.features(model.backbone(images)).double().numpy()
    vectors = features[:3].transpose(0, 2, 3, 1).reshape(-1, features.shape[1])
    mean = vectors.mean(axis=0)
    direction = np.linalg.svd(vectors - mean, full_matrices=False)[2][0]
    direction = direction if direction.sum() > 0 else -direction
    for i in range(len(images)):
        for u in range(features.shape[2]):
            for v in range(features.shape[3]):
                expected = sum((features[i, :, u, v] - mean) * direction)
                assert float(maps[""][i, u, v]) == pytest.approx(expected, abs=1e-4)


def test_ddt_follows_the_class_and_knows_nothing_of_one_without_images(model: base.Method, images: Tensor) -> None:
    extractor = DDT(model, at="layer2")
    fit(model, [extractor], [(0, [images[:3]]), (1, [images[3:]])])
    first, second, third = (
        extract(model, {"": extractor}, images, torch.full((len(images),), c))[1][""] for c in (0, 1, 2)
    )
    assert not torch.equal(first, second)
    assert not third.any()


def test_ddts_sign_rises_with_the_channel_mean_or_leaves_the_border_low() -> None:
    features = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    mean, direction = first_direction(iter([features]))
    cells = features.double().movedim(1, 3).flatten(0, 2)
    along = (cells - mean) @ direction
    assert float((along * (cells.mean(dim=1) - mean.mean())).mean()) > 0
    low = torch.zeros(1, 4, 4)
    low[0, 1:3, 1:3] = 1
    for given in (low, 1 - low):
        turned = flip_if_border_mean_high(given)[0]
        assert turned[0, 0] < turned[1, 1]
