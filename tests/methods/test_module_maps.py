"""Maps of a network that eil did not build."""

import pytest
import torch
from torch import Tensor, nn

from eil.core.files import InputError
from eil.methods.head import class_activation_maps
from eil.methods.module_maps import module_maps

IMAGES = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([0, 3, 1])


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, stride=2), nn.BatchNorm2d(6))
    return nn.Sequential(body, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


def test_it_is_cam_where_pooling_and_a_linear_layer_follow(model: nn.Sequential) -> None:
    logits, maps = module_maps(model, "1", IMAGES, CLASSES)
    model.eval()
    with torch.no_grad():
        features = model[:2](IMAGES)
        torch.testing.assert_close(logits, model(IMAGES))
        cam = class_activation_maps(features, model[4].weight, CLASSES)
    torch.testing.assert_close(maps * features[0, 0].numel(), cam)
    assert not maps.requires_grad
    assert not logits.requires_grad


def test_weights_are_the_mean_gradients_at_any_layer(model: nn.Sequential) -> None:
    _, maps = module_maps(model, "0", IMAGES, CLASSES)
    model.eval()
    features = model[0](IMAGES).detach().requires_grad_()
    expected = torch.zeros(3, 6, 6)
    for i, label in enumerate(CLASSES.tolist()):
        (gradient,) = torch.autograd.grad(model[1:](features.clone())[i, label], features)
        for k in range(6):
            expected[i] += gradient[i, k].mean() * features[i, k].detach()
    torch.testing.assert_close(maps, expected)
    _, positive = module_maps(model, "0", IMAGES, CLASSES, relu=True)
    torch.testing.assert_close(positive, expected.clamp(min=0))
    assert maps.min() < 0


def test_a_frozen_network_under_no_grad_has_maps_and_stays_as_it_was(model: nn.Sequential) -> None:
    model.requires_grad_(False).train()
    model[0][1].eval()  # a user's choice
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        _, maps = module_maps(model, "0", IMAGES, CLASSES)
    assert maps.shape == (3, 6, 6)
    assert [model.training, model[0][0].training, model[0][1].training] == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model[0]._forward_hooks


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 2, 1), nn.Linear(2, 4)

    def forward(self, images: Tensor) -> Tensor:
        twice: Tensor = self.body(images) + self.body(images)
        return self.head(twice.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("5", "layer 5: Sequential has none of this name; it has 0, 1, 2, 3, 4"),
        ("4", r"layer 4: expected an output of shape \(B, K, h, w\), got \(3, 4\)"),
    ],
)
def test_a_wrong_layer_is_named(model: nn.Sequential, layer: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        module_maps(model, layer, IMAGES, CLASSES)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_wrong_model_is_named() -> None:
    with pytest.raises(InputError, match="layer body: is used 2 times in a forward pass, expected once"):
        module_maps(Twice(), "body", IMAGES, CLASSES)
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    with pytest.raises(InputError, match=r"Sequential: expected logits of shape \(B, C\), got \(3, 4, 12, 12\)"):
        module_maps(model, "0", IMAGES, CLASSES)
