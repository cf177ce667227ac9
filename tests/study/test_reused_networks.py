"""``maps`` of a study: extractors on every trained run that they fit, and what is wrong with them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from eil.core import records
from eil.core.files import InputError, read_arrays
from eil.core.metric_definitions import ScoreKey
from eil.core.run import Run, file_name
from eil.data import cache
from eil.data.augment import normalise
from eil.evaluation import evaluate
from eil.report import figures, results, tables
from eil.report.configurations import group
from eil.study.study import parse
from eil.training import localize, train, train_step

MAPS = ["gradcam++", {"name": "layercam", "at": ["pool2", "conv4"]}]
LABELS = ["gradcam++", "layercam-atpool2", "layercam-atconv4"]


def test_every_trained_run_has_every_map(content: dict[str, Any]) -> None:
    content |= {"maps": MAPS, "controls": ["gaussian"], "seeds": 1}
    runs, dropped = parse(content, "x").expand("x")
    methods = ["cam", "eil-gamma0.6-sigma1", "eil-gamma0.8-sigma1"]
    expected = [f"vgg_small-{method}-seed0" for method in methods] + ["vgg_small-cam-gaussian-seed0"]
    expected += [f"vgg_small-{method}-{label}-seed0" for method in methods for label in LABELS]
    assert [run.name for run in runs] == expected
    assert dropped == []
    assert len({run.key for run in runs}) == len(runs)
    borrowing = [run for run in runs if run.reuses_network]
    assert {run.training_run.name for run in borrowing} == {f"vgg_small-{method}-seed0" for method in methods}
    assert all(not run.training_run.reuses_network for run in runs)
    assert parse(content, "x").find_run(expected[-1]) == runs[-1]


def test_a_run_without_an_extractor_keeps_its_key(content: dict[str, Any]) -> None:
    """As it was hashed before runs had extractors."""
    run = parse(content | {"maps": MAPS}, "x").runs()[0]
    before = run.model_dump(mode="json", exclude={"study": True, "dataset": {"root"}})
    for name in ("layout", "network", "checkpoint", "extractor"):
        del before[name]
    for name in ("multipliers", "bias_multiplier", "optimizer", "decay_biases"):
        del before["recipe"][name]
    assert run.key == hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()[:12]


def test_what_does_not_fit_is_dropped_with_its_reason(content: dict[str, Any]) -> None:
    content |= {"methods": {"cam": {}, "acol": {}}, "backbones": ["vgg_small", "resnet_small"]}
    runs, dropped = parse(content | {"maps": MAPS}, "x").expand("x")
    with_maps = {(run.backbone, run.method, "-".join(run.extractor.parts)) for run in runs if run.extractor}
    assert with_maps == {("vgg_small", "cam", label) for label in LABELS} | {("resnet_small", "cam", "gradcam++")}
    acol = "ACoL makes its logits and maps in its own way"
    stage = "must be a stage of resnet_small: stem, layer1, layer2, layer3"
    assert len(dropped) == 4
    assert dropped[0].startswith(f"vgg_small-acol: maps gradcam++, layercam-atpool2, layercam-atconv4: {acol}")
    assert dropped[1] == f"resnet_small-cam: maps layercam-atpool2: at = pool2: {stage}"


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        (["grad"], r"x: maps\[0\] = grad: must be one of bagcams, cam, ccam, ddt, gradcam, gradcam\+\+, hirescam"),
        (["cam", {"name": "layercam", "stage": "conv3"}], r"x: maps\[1\].stage: unknown key \(known: at\)"),
        ([{"name": "layercam", "at": ["pool2", "pool9"]}], r"x: maps\[0\].at = pool9: must be a stage of vgg_small"),
        ([{"name": "ccam", "positive": 1.5}], r"x: maps\[0\].positive = 1.5: Input should be less than or equal to 1"),
        ([{"name": "bagcams", "guided": "yes"}], r"x: maps\[0\].guided = 'yes': Input should be a valid boolean"),
        ([{"name": "layercam", "at": []}], r"x: maps\[0\].at = \[\]: an empty list leaves no maps"),
        ([{"at": "pool2"}], r"x: maps\[0\].name: missing"),
        ("gradcam", r"x: maps = 'gradcam': Input should be a valid tuple"),
        (["gradcam", "gradcam"], r"x: two runs are named vgg_small-cam-gradcam-seed0"),
    ],
)
def test_what_is_wrong_is_named(content: dict[str, Any], maps: object, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        parse(content | {"maps": maps}, "x").expand("x")


def test_too_many_maps_are_refused_before_they_are_spread(content: dict[str, Any]) -> None:
    content["maps"] = [{"name": "ccam", "positive": list(range(2000)), "negative": list(range(2000))}]
    with pytest.raises(InputError, match="more than 1,000,000 runs"):
        parse(content, "x")


@pytest.fixture
def borrowing(content: dict[str, Any]) -> dict[str, Run]:
    content |= {"methods": {"cam": {}}, "seeds": 1, "maps": ["cam", "gradcam++", "ddt"]}
    return {run.name: run for run in parse(content, "x").runs()}


def test_an_extractors_run_is_scored_and_reported_beside_the_methods_own(
    borrowing: dict[str, Run], content: dict[str, Any], images: Path, tmp_path: Path
) -> None:
    own, *others = borrowing.values()
    for run in borrowing.values():
        (tmp_path / "runs" / run.name).mkdir(parents=True)
    train.train(own, images, tmp_path / "runs" / own.name)
    made = []
    for run in borrowing.values():
        localize.localize(run, images, tmp_path / "runs" / run.name)
        made.append(evaluate.evaluate(run, images, tmp_path / "runs" / run.name))
    arrays = {run.name: read_arrays(tmp_path / "runs" / run.name / "maps.npz") for run in borrowing.values()}
    for run in others:
        np.testing.assert_array_equal(arrays[run.name]["test_logits"], arrays[own.name]["test_logits"])
        assert records.read(tmp_path / "runs" / run.name / "record.json").training == {}
    same, gradcam, ddt = others
    np.testing.assert_array_equal(arrays[same.name]["test_maps"], arrays[own.name]["test_maps"])
    assert not np.array_equal(arrays[gradcam.name]["test_maps"], arrays[own.name]["test_maps"])
    np.testing.assert_allclose(arrays[ddt.name]["test_maps"], ddt_maps(own, images, tmp_path / "runs"), atol=1e-3)
    assert made[1].value(ScoreKey("gt_known_loc")) == made[0].value(ScoreKey("gt_known_loc"))

    written = tables.write(parse(content, "x"), made, planned=4, left_out=[])
    rows = [line.split(" | ") for line in written["maps.md"].splitlines() if line.startswith("| vgg_small")]
    assert [row[2] for row in rows] == ["own", "cam", "gradcam++", "ddt"]
    assert rows[1][-3].startswith("0.0")  # the same maps
    assert [line.split(" | ")[1] for line in written["main.md"].splitlines() if line.startswith("| vgg_small")] == [
        "cam †"
    ]
    frame = results.table(made)
    assert list(frame["extractor"].dropna().unique()) == ["cam", "gradcam++", "ddt"]
    drawn = dict(figures.of_other_maps(group(made), tmp_path / "runs"))
    assert list(drawn) == ["maps", "maps_vgg_small_cam"]
    (panel,) = drawn["maps"]().axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["own map", "cam", "gradcam++", "ddt"]
    titles = [axes.get_title() for axes in drawn["maps_vgg_small_cam"]().axes]
    assert [title for title in titles if title] == ["image", "cam: map", "cam", "gradcam++", "ddt"]
    plt.close("all")

    of_timm = []
    for record in made:
        run = record.run.model_copy(update={"backbone": "timm/resnet18"})  # a slash would make a folder of figures
        (tmp_path / "runs" / run.name).symlink_to(tmp_path / "runs" / record.run.name)
        of_timm.append(record.model_copy(update={"run": run}))
    names = [name for name, _ in figures.of_other_maps(group(of_timm), tmp_path / "runs")]
    assert names == ["maps", f"maps_{file_name('timm/resnet18')}_cam"]
    assert "/" not in names[1]


def ddt_maps(run: Run, images: Path, runs: Path) -> Any:
    """By hand, from the middle of the training images: their cells' mean, and what varies most."""
    model = train_step.build(run, images).eval()
    train.load_weights(runs / run.name / "weights.safetensors", model, run)
    found = {}
    with torch.no_grad():
        for split in ("train", "test"):
            cached = cache.open_split(images, split)
            margin = (cached.images.shape[1] - run.recipe.crop) // 2
            window = slice(margin, margin + run.recipe.crop)
            middle = torch.from_numpy(np.array(cached.images[:, window, window]))
            info = model.backbone.info
            features = model.head.features(model.backbone(normalise(middle, info.mean, info.std)))
            found[split] = (features.double().numpy().transpose(0, 2, 3, 1), cached.labels)
    (train_features, train_labels), (test_features, test_labels) = found["train"], found["test"]
    maps = []
    for features, label in zip(test_features, test_labels, strict=True):
        vectors = train_features[train_labels == label].reshape(-1, train_features.shape[3])
        direction = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[2][0]
        maps.append((features - vectors.mean(axis=0)) @ (direction * np.sign(direction.sum())))
    return np.stack(maps)


def test_an_extractors_run_cannot_be_trained(borrowing: dict[str, Run], images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no training of its own; it takes the network of vgg_small-cam-seed0"):
        train.train(borrowing["vgg_small-cam-gradcam++-seed0"], images, tmp_path)
