"""Checkpoints with others' names become our networks; those of other networks are refused with what does not match."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from reference_checkpoints import CELLS, CLASSES, State, method_of, reference_of, vgg_names
from torch import Tensor

from eil.core.files import InputError
from eil.core.run import Run
from eil.methods.base import Method
from eil.training import imported
from eil.training.imported import run_of


def taken(run: Run, model: Method, state: State) -> imported.Match:
    """A state dict imported without a file."""
    found = imported.best_match(state, model.state_dict(), imported.candidates(run, model.backbone))
    imported.require_match(found, "x", run)
    model.load_state_dict(found.tensors, strict=False)
    return found


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("backbone", "method", "stride"), CELLS)
def test_the_benchmarks_weights_give_its_logits(backbone: str, method: str, stride: int) -> None:
    reference = reference_of(backbone, method, stride)
    run = run_of(backbone, method, stride, "wsoleval")
    model = method_of(run)
    state = reference.state()
    found = taken(run, model, state)
    assert (len(found.tensors), found.ignored) == (len(state), [])
    assert "wsoleval" in found.key_map.name
    images, classes = torch.randn(2, 3, 64, 64), torch.tensor([0, 3])
    with torch.no_grad():
        logits, _ = model.maps(images, classes)
        first = "classifier_A" if method == "acol" else ""
        assert difference(logits, reference.scores(images, first)) < 1e-5
    ours = model.state_dict()
    pairs = {
        "acol": {"second.conv.0.0": "classifier_B.0", "second.conv.1.0": "classifier_B.2"},
        "spg": {
            "b1.0": "SPG_B_1a.0",
            "b2.0": "SPG_B_2a.0",
            "shared.0.0": "SPG_B_shared.0",
            "shared.1": "SPG_B_shared.2",
            "c.0.0": "SPG_C.0",
            "c.1": "SPG_C.2",
        },
    }
    for name, theirs in pairs.get(method, {}).items():
        assert torch.equal(ours[f"{name}.weight"], state[f"{theirs}.weight"])
        assert torch.equal(ours[f"{name}.bias"], state[f"{theirs}.bias"])


@pytest.mark.parametrize("method", ["has", "cutmix"])
def test_methods_with_cams_network_have_its_names(method: str) -> None:
    run = run_of("vgg16", method, 8, "wsoleval")
    assert taken(run, method_of(run), reference_of("vgg16", "cam", 8).state()).key_map.name == "wsoleval"


def renamed(state: State, change: Callable[[str], str]) -> State:
    return {change(name): value for name, value in state.items()}


def test_the_eil_authors_names() -> None:
    """``conv4_2`` is the second convolution of the fourth block; saved by DataParallel."""
    reference = reference_of("vgg16", "cam", 16)
    blocks = [f"conv{k}_{i + 1}" for k, n in enumerate((2, 2, 3, 3, 3), start=1) for i in range(n)]
    trunk = dict(zip(vgg_names("cam", 16), blocks, strict=True))
    state = renamed(
        reference.state(),
        lambda name: ".".join([trunk.get(name.rpartition(".")[0], name.split(".")[0]), name.rpartition(".")[2]]),
    )
    run = run_of("vgg16", "eil", 16, "authors")
    model = method_of(run)
    assert taken(run, model, state).key_map.name == "authors"
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert difference(model.maps(images, torch.tensor([1, 2]))[0], reference.scores(images)) < 1e-5


def test_the_acol_and_spg_authors_names() -> None:
    acol = run_of("vgg16", "acol", 8, "authors")
    state = renamed(
        reference_of("vgg16", "acol", 8).state(),
        lambda name: name.replace("classifier_A", "cls").replace("classifier_B", "cls_erase"),
    )
    assert taken(acol, method_of(acol), state).key_map.name == "authors"
    spg = run_of("inception_v3", "spg", 8, "authors")
    theirs = {
        "SPG_A3_1b": "fc6",
        "SPG_A3_2b": "fc7_1",
        "SPG_A4": "classier_1",
        "SPG_B_1a": "side3",
        "SPG_B_2a": "side4",
        "SPG_B_shared": "side_all",
        "SPG_C": "branchB",
    }
    state = reference_of("inception_v3", "spg", 8).state()
    state = renamed(
        state, lambda name: ".".join([theirs.get(name.split(".")[0], name.split(".")[0]), *name.split(".")[1:]])
    )
    older = {name: value for name, value in state.items() if "num_batches" not in name}
    assert taken(spg, method_of(spg), older).key_map.name == "authors"


@pytest.mark.parametrize("backbone", ["resnet50", "inception_v3"])
def test_torchvisions_whole_network_at_stride_32(backbone: str) -> None:
    torch.manual_seed(0)
    options = {"init_weights": False} if backbone == "inception_v3" else {}
    theirs = getattr(torchvision.models, backbone)(weights=None, num_classes=CLASSES, **options).eval()
    run = run_of(backbone, "cam", 32, "own").model_copy(update={"network": {"head_widths": ()}})
    model = method_of(run)
    found = taken(run, model, theirs.state_dict())
    assert "torchvision" in found.key_map.name
    assert bool(found.ignored) == (backbone == "inception_v3")  # its auxiliary classifier
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert difference(model.maps(images, torch.tensor([0, 1]))[0], theirs(images)) < 1e-5


def test_what_does_not_match_is_listed_with_shapes() -> None:
    state = reference_of("vgg16", "cam", 16).state()
    state["extra.weight"] = torch.zeros(2, 3)
    state["fc.bias"] = torch.zeros(7)
    del state["conv6.weight"]
    run = run_of("vgg16", "cam", 16, "wsoleval")
    with pytest.raises(InputError) as error:
        taken(run, method_of(run), state)
    assert str(error.value).splitlines() == [
        "x: does not match; closest are wsoleval's names for cam on vgg16",
        "missing: head.conv.0.0.weight (1024, 512, 3, 3)",
        "unexpected: extra.weight (2, 3)",
        f"mismatched: fc.bias (7), head.classifier.bias is ({CLASSES})",
    ]


@pytest.mark.parametrize(("method", "stride"), [("cam", 8), ("adl", 16), ("spg", 16)])
def test_a_checkpoint_of_another_cell_is_refused(method: str, stride: int) -> None:
    run = run_of("vgg16", "cam", 16, "wsoleval")
    with pytest.raises(InputError, match="missing: backbone.stages"):
        taken(run, method_of(run), reference_of("vgg16", method, stride).state())


def test_the_same_tensors_in_a_network_with_other_pools_are_refused() -> None:
    run = run_of("vgg16", "acol", 16, "own")
    with pytest.raises(InputError, match="whose network has pools = 3x3; set layout: wsoleval"):
        taken(run, method_of(run), reference_of("vgg16", "acol", 16).state())
