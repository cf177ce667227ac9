"""Boxes that leave the program: in the photo's pixels, and worth what was recorded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from miniatures import SMOKE
from PIL import Image as PILImage

from eil import data
from eil.commands import cli
from eil.core.files import InputError, write_arrays
from eil.core.metric_definitions import GT_KNOWN_LOC
from eil.data import Dataset, cache, geometry
from eil.data.geometry import Frame
from eil.evaluation import protocols
from eil.evaluation.box_files import score_boxes
from eil.evaluation.evaluate import evaluate
from eil.report.coco import coco
from eil.study.study import load

RESIZED, SIDE = 256, 224
GEOMETRIES: tuple[geometry.Geometry, ...] = ("direct", "center-crop", "shorter-side")
SIZES = [(90, 40), (37, 81), (300, 200), (120, 400), (224, 224), (500, 375)]  # width and height


def own_photos(root: Path, each: int = 4) -> Path:
    """Photos of two classes in the folder layout, with a box in the middle part that every geometry shows."""
    rng = np.random.default_rng(0)
    lines = ["path,x0,y0,x1,y1"]
    for split, count in (("train", 2), ("val", each), ("test", each)):
        for name in ("cat", "dog"):
            for k in range(count):
                width, height = SIZES[len(lines) % len(SIZES)]
                path = root / split / name / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                PILImage.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
                side = min(width, height)
                x, y = width / 2 + rng.uniform(-0.1, 0.1) * side, height / 2 + rng.uniform(-0.1, 0.1) * side
                w, h = rng.uniform(0.15, 0.3, 2) * side
                box = [round(x - w), round(y - h), round(x + w), round(y + h)]
                lines.append(",".join(map(str, [path.relative_to(root), *box])))
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    return root


def test_the_cache_keeps_each_photos_size(tmp_path: Path) -> None:
    dataset = data.read("folder", own_photos(tmp_path / "photos"), {})
    cache.build(dataset, tmp_path / "cache", Frame(40, 32, "shorter-side"))
    for name, split in dataset.splits.items():
        found = cache.open_split(tmp_path / "cache", name)
        assert found.sizes.tolist() == [list(PILImage.open(path).size) for path in split.sources]
        assert len(np.unique(found.sizes, axis=0)) >= 4


@settings(deadline=None, max_examples=100)
@given(
    st.tuples(st.integers(20, 600), st.integers(20, 600)),
    st.sampled_from(GEOMETRIES),
    st.tuples(*[st.floats(0.2, 0.8)] * 4),
)
def test_back_undoes_what_placing_does(
    size: tuple[int, int], kind: geometry.Geometry, shares: tuple[float, ...]
) -> None:
    """Up to the truncation to whole pixels of the square."""
    frame = Frame(RESIZED, SIDE, kind)
    placed = geometry.eval_frame(size, frame)
    corners = np.array([[*sorted(shares[:2]), *sorted(shares[2:])]])[:, [0, 2, 1, 3]] * np.array([*size, *size])
    low = np.array([placed.left, placed.top] * 2)
    scaled = corners * np.array([placed.width, placed.height] * 2) / np.array([*size, *size]) - low
    np.testing.assert_allclose(placed.to_photo(scaled, size), corners)
    if (scaled >= 0).all() and (scaled < SIDE).all():
        step = np.array(size) / [placed.width, placed.height]
        assert (np.abs(placed.to_photo(placed.boxes(corners, size), size) - corners) <= np.tile(step, 2) + 1e-6).all()


def test_a_centre_crop_goes_back_by_hand() -> None:
    """200 x 100 becomes 256 x 256, of which 224 x 224 are kept, from 16 on."""
    placed = geometry.eval_frame((200, 100), Frame(256, 224, "center-crop"))
    assert placed.to_photo(np.array([[0.0, 0, 224, 224]]), (200, 100)).tolist() == [[12.5, 6.25, 187.5, 93.75]]


Study = tuple[Path, Dataset]


@pytest.fixture(scope="module", params=GEOMETRIES)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study on such photos; a control's run has maps that hit and miss."""
    folder = tmp_path_factory.mktemp("export")
    root = own_photos(folder / "photos", each=20)
    recipe = SMOKE["recipe"] | {"resize": RESIZED, "crop": SIDE, "geometry": request.param}
    content = SMOKE | {"dataset": {"name": "folder", "root": str(root)}, "controls": ["centred_box"], "recipe": recipe}
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    run = control(folder)
    dataset = data.read("folder", root, {})
    cache.build(dataset, folder / "data" / run.cache, Frame(RESIZED, SIDE, request.param))
    made: dict[str, Any] = {"examples": np.arange(3)}
    for what, value in cache.fingerprints(folder / "data" / run.cache)._asdict().items():
        made[f"made_from_{what}"] = np.array(value)
    for name in ("val", "test"):
        split = cache.open_split(folder / "data" / run.cache, name)
        rng = np.random.default_rng(1)
        made[f"{name}_maps"] = np.stack([noisy(own[0], rng) for own in split.boxes]).astype(np.float32)
        made[f"{name}_logits"] = rng.normal(size=(len(split.ids), 2)).astype(np.float32)
    made["test_maps"][3] = 0.1  # without contrast
    prints = cache.fingerprints(folder / "data" / run.cache)
    made |= {f"made_from_{what}": np.array(value) for what, value in prints._asdict().items()}
    write_arrays(folder / "results/runs" / run.name / "maps.npz", made)
    return folder, dataset


def control(folder: Path) -> Any:
    return next(run for run in load(folder / "study.yaml").runs() if run.control)


def noisy(box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bright in a box that is about the true one, or, every third time, beside it, (56, 56)."""
    width, height = box[2:] - box[:2]
    shift = (rng.uniform(0.5, 0.8) if rng.random() < 1 / 3 else rng.uniform(-0.1, 0.1)) * np.array([width, height] * 2)
    x0, y0, x1, y1 = (box + shift) / SIDE * 56
    y, x = np.mgrid[:56, :56] + 0.5
    inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
    return inside * (0.9 + 0.1 * rng.random((56, 56))) + 0.03 * rng.random((56, 56))


def iou(found: list[float], true: list[float]) -> float:
    """Of COCO's x, y, width, height and inclusive corners, by areas."""
    x, y, width, height = found
    x0, y0, x1, y1 = true[0], true[1], true[2] + 1, true[3] + 1
    shared = max(min(x + width, x1) - max(x, x0), 0) * max(min(y + height, y1) - max(y, y0), 0)
    return shared / (width * height + (x1 - x0) * (y1 - y0) - shared)


@pytest.mark.parametrize("name", ["val-threshold", "wsoleval-v1", "wsoleval-v2", "eil-code", "acol-legacy", "ts-cam"])
def test_exported_boxes_score_what_is_recorded_on_the_original_annotations(study: Study, name: str) -> None:
    folder, dataset = study
    run, test = control(folder), dataset.splits["test"]
    place = folder / "results/runs" / run.name
    record = evaluate(run, folder / "data" / run.cache, place, [name])
    rows = coco(record, folder / "data" / run.cache, place)
    true = dict(zip(test.ids, test.boxes, strict=True))
    best = dict.fromkeys(test.ids, 0.0)
    for row in rows:
        overlaps = [iou(row["bbox"], own) for own in true[row["image_id"]].tolist()]
        best[row["image_id"]] = max(best[row["image_id"]], *overlaps)
        x, y, width, height = row["bbox"]
        size = PILImage.open(test.sources[test.ids.index(row["image_id"])]).size
        assert (row["image_width"], row["image_height"]) == size
        assert min(x, y, width, height) >= 0
        assert x + width <= size[0] + 1e-3
        assert y + height <= size[1] + 1e-3
    recorded = (record.value(GT_KNOWN_LOC) or 0) * len(test.ids) / 100
    assert 8 <= recorded <= 36
    assert abs(sum(value >= 0.5 for value in best.values()) - recorded) <= 1
    assert test.ids[3] not in {row["image_id"] for row in rows}
    several = protocols.find(name).contours == "all"
    assert (len(rows) > len(test.ids) - 1) == several


def lists_of(dataset: Dataset, folder: Path) -> Path:
    """The test split's lists in the benchmark's layout."""
    test = dataset.splits["test"]
    sizes = [PILImage.open(path).size for path in test.sources]
    rows: dict[str, list[str]] = {
        "image_ids": list(test.ids),
        "class_labels": [f"{name},{label}" for name, label in zip(test.ids, test.labels, strict=True)],
        "image_sizes": [f"{name},{width},{height}" for name, (width, height) in zip(test.ids, sizes, strict=True)],
        "localization": [
            f"{name},{','.join(map(str, box))}"
            for name, own in zip(test.ids, test.boxes, strict=True)
            for box in own.tolist()
        ],
    }
    folder.mkdir(exist_ok=True)
    for name, lines in rows.items():
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("frame", ["photo", "network"])
def test_exported_boxes_scored_again_give_the_recorded_score(study: Study, frame: Any) -> None:
    """To the last digit where protocol and recipe have one geometry: else the frames differ by a crop."""
    folder, dataset = study
    run = control(folder)
    names = {"direct": ["val-threshold", "wsoleval-v1", "wsoleval-v2"], "center-crop": ["eil-code", "acol-legacy"]}
    if run.recipe.geometry not in names:
        pytest.skip("no protocol has this geometry")
    lists, out = lists_of(dataset, folder / "lists"), folder / "again.json"
    where = ["--results", str(folder / "results"), "--data", str(folder / "data")]
    for name in names[run.recipe.geometry]:
        record = evaluate(run, folder / "data" / run.cache, folder / "results/runs" / run.name, [name])
        asked = ["boxes", str(folder / "study.yaml"), run.name, "--out", str(out), "--frame", frame]
        assert cli.main([*asked, *where]) == 0
        with pytest.raises(InputError, match="1 of 40 images have no box"):  # a map of it has no contrast
            score_boxes(out, lists, name, SIDE)
        found = score_boxes(out, lists, name, SIDE, allow_missing=True)
        assert found["gt_known_loc"] == record.value(GT_KNOWN_LOC)
        assert 20 <= found["gt_known_loc"] <= 90
        assert found["missing"] == [dataset.splits["test"].ids[3]]
        assert found["box_acc_70"] <= found["gt_known_loc"] <= found["box_acc_30"]


def test_the_command_writes_the_frame_that_is_asked_for(study: Study) -> None:
    folder, _ = study
    run = control(folder)
    evaluate(run, folder / "data" / run.cache, folder / "results/runs" / run.name, ["wsoleval-v1"])
    where = ["--results", str(folder / "results"), "--data", str(folder / "data")]
    for options, sizes in ((["--frame", "network"], {(SIDE, SIDE)}), ([], set(SIZES))):
        out = folder / "boxes.json"
        assert cli.main(["boxes", str(folder / "study.yaml"), run.name, "--out", str(out), *options, *where]) == 0
        rows = json.loads(out.read_text())
        assert {(row["image_width"], row["image_height"]) for row in rows} == sizes
        assert len(rows) == 39
