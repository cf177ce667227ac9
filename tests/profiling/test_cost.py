"""What a study will cost, against counts by hand; and that the studies that come with the project are what they say."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eil.commands import cli
from eil.core.files import InputError
from eil.profiling import cost
from eil.study.study import load, parse

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "workflow" / "config").glob("*.yaml"))
IMAGES = {"train": 16, "val": 6, "test": 8}


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_operations_of_a_convolution_in_groups(groups: int) -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    images = torch.randn(2, 8, 6, 6, requires_grad=True)
    forward = 2 * 2 * 36 * 8 * (8 // groups) * 9  # two an entry: a product and a sum
    assert cost.operations(lambda: layer(images)) == forward
    assert cost.operations(lambda: layer(images).sum().backward()) == 3 * forward
    fixed = images.detach()  # no gradient to the images: the first layer's case
    assert cost.operations(lambda: layer(fixed).sum().backward()) == 2 * forward


def test_cost_of_cam_is_the_networks(content: dict[str, Any]) -> None:
    content |= {"methods": ["cam"], "seeds": 3, "controls": ["gaussian"]}
    runs = parse(content, "s").runs()
    (found,) = cost.cost(runs, IMAGES, 2).values()
    assert found.trainings == 3
    # vgg_small at 32 pixels: convolutions of 3x3 at 32, 16, three at 8 and the head's at 8, then the classifier.
    places = [(3, 16, 32), (16, 32, 16), (32, 64, 8), (64, 64, 8), (64, 64, 8), (64, 64, 8)]
    model = cost._shapes(runs[0], 2)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    layers = [(m.in_channels, m.out_channels) for m in convolutions]
    assert layers == [(i, o) for i, o, _ in places]
    forward = [2 * 9 * i * o * side**2 for i, o, side in places] + [2 * 64 * 2]
    step = 3 * sum(forward) - forward[0]  # the images need no gradient
    assert found.training == pytest.approx(3 * step * 16 * 2, rel=0.01)
    assert found.inference == pytest.approx(3 * sum(forward) * 14, rel=0.05)
    assert found.weights == 3 * 4 * sum(p.numel() for p in model.parameters())
    assert found.maps == 3 * 4 * 14 * (8 * 8 + 2)
    assert cost.cached_bytes(runs, IMAGES) == 3 * (16 * 36**2 + 14 * 32**2)


def test_a_transformers_attention_is_counted(content: dict[str, Any]) -> None:
    """Also where a method leaves autocast, which tensors without memory do not have."""
    settings = {"at": "blocks_2", "attention": "class_token"}
    content |= {
        "backbones": ["timm/test_vit.r160_in1k"],
        "methods": {"cam": {}, "tscam": {}, "scm": {}, "eil": settings},
    }
    cam, tscam, scm, eil = (cost.cost([run], IMAGES, 2).popitem()[1] for run in parse(content, "s").runs()[:8:2])
    assert scm.training > tscam.training > cam.training
    assert eil.training > cam.training
    assert tscam.inference > cam.inference


def test_more_epochs_erasing_and_ten_crops_cost_more(content: dict[str, Any]) -> None:
    def costs(**recipe: object) -> cost.Cost:
        own = content | {"methods": {"eil": {"gamma": 0.7}}, "recipe": content["recipe"] | recipe}
        return cost.cost(parse(own, "s").runs(), IMAGES, 2)["vgg_small"]

    one, more, crops = costs(), costs(epochs=6), costs(crops=10)
    assert more.training == 3 * one.training
    assert crops.inference == 11 * one.inference
    cam = cost.cost(parse(content | {"methods": ["cam"]}, "s").runs(), IMAGES, 2)["vgg_small"]
    assert 1.2 * cam.training < one.training < 2 * cam.training


def test_hours_are_by_the_measured_rate(tmp_path: Path) -> None:
    header = "what,method,backbone,pixels,batch,ms,GFLOP/s,device,precision\n"
    rows = [
        f"training step,cam,{backbone},56,32,1,{rate},a device,fp32\n"
        for backbone, rate in (("vgg_small", 10), ("vgg_small", 30), ("vgg_small", 20), ("resnet50", 40))
    ]
    (tmp_path / "step-a.csv").write_text(header + "".join(rows) + "inference,cam,vgg16,56,32,1,999,a device,fp32\n")
    (rate,) = cost.rates([tmp_path / "step-a.csv"])
    assert (rate.for_backbone("vgg_small"), rate.for_backbone("resnet50"), rate.for_backbone("vgg16")) == (
        20e9,
        40e9,
        30e9,
    )
    costs = {"vgg_small": cost.Cost(1, 20e9 * 3600, 20e9 * 3600, 1e9, 0), "vgg16": cost.Cost(2, 30e9 * 3600, 0, 0, 0)}
    text = cost.lines(costs, [rate], [0.1], 2e9)
    assert text[2] == "disk: 3 GB, 2 GB of it decoded images"
    assert text[0] == "vgg_small: 1 trainings, 72 TFLOP to train, 72 TFLOP for maps"
    assert text[3] == "3.0 hours on one a device, fp32 (vgg16 not measured: by the median of the others' rates)"
    assert text[4] == "42 minutes at 0.1 TFLOP/s, if a device sustains that (not measured)"
    (tmp_path / "step-b.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="step-b.csv: not a table of step times"):
        cost.rates([tmp_path / "step-b.csv"])


def test_own_measurements_and_those_kept_are_both_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    for name in ("step-fp32-mine.csv", "main.csv"):
        (tmp_path / "results" / name).touch()
    kept = [path.name for path in sorted(ROOT.glob("results/reference/step-*.csv"))]
    assert kept
    assert [path.name for path in cost.measured()] == ["step-fp32-mine.csv", *kept]


def test_plan_counts_the_data_set_itself(tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["plan", str(ROOT / "workflow/config/smoke.yaml"), "--rates", "--tflops", "1"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^smoke: \d+ runs, \d+ of them trainings; \d+ \+ \d+ \+ \d+ images of", printed)
    assert "at 1 TFLOP/s" in printed


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_are_sound_and_as_large_as_they_say(path: Path) -> None:
    runs, _ = load(path).expand(str(path))
    trainings = sum(not run.reuses_network for run in runs)
    says = re.search(r"(\d+) runs, (\d+) of them trainings", path.read_text(encoding="utf-8"))
    assert says is not None
    assert (len(runs), trainings) == (int(says[1]), int(says[2]))
