"""Boxes instead of maps: a file of COCO's results, from the command line and in a program."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eil.commands import cli
from eil.core.files import InputError
from eil.data.readers import wsoleval
from eil.evaluation.box_files import score_boxes

LISTS = Path(__file__).parents[1] / "data" / "wsol_miniature" / "test"
IDS = wsoleval.lists(LISTS).ids


def rows_of_truth() -> list[dict[str, Any]]:
    """The first true box of each image as COCO has it."""
    found = wsoleval.lists(LISTS)
    assert found.boxes is not None
    firsts = [own[0].tolist() for own in found.boxes]
    return [
        {"image_id": name, "bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1], "score": 0.5}
        for name, (x0, y0, x1, y1) in zip(found.ids, firsts, strict=True)
    ]


def written(folder: Path, rows: Any) -> Path:
    path = folder / "boxes.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


@pytest.mark.parametrize("protocol", ["val-threshold", "wsoleval-v1", "wsoleval-v2", "ts-cam"])
def test_true_boxes_score_everything_without_a_threshold(tmp_path: Path, protocol: str) -> None:
    found = score_boxes(written(tmp_path, rows_of_truth()), LISTS, protocol)
    scores = {key: found[key] for key in ("gt_known_loc", "box_acc_30", "box_acc_70", "box_acc")}
    assert scores == dict.fromkeys(scores, 100.0)
    assert (found["protocol"], found["images"], found["missing"]) == (protocol, len(IDS), [])


def literal_iou(found: list[float], true: list[float]) -> float:
    """Of areas, in pixels of the photo."""
    x, y, width, height = found
    x0, y0, x1, y1 = true[0], true[1], true[2] + 1, true[3] + 1
    wide, high = min(x + width, x1) - max(x, x0), min(y + height, y1) - max(y, y0)
    shared = max(wide, 0) * max(high, 0)
    return shared / (width * height + (x1 - x0) * (y1 - y0) - shared)


def test_the_share_of_each_iou_equals_the_loop_on_the_photo(tmp_path: Path) -> None:
    """Boxes of many sizes; those whose IoU is within 0.03 of a limit may fall on its other side in the frame."""
    rng, metadata = np.random.default_rng(0), wsoleval.lists(LISTS)
    assert metadata.boxes is not None
    rows, overlaps = rows_of_truth(), []
    for row, true in zip(rows, metadata.boxes, strict=True):
        x, y, width, height = row["bbox"]
        while True:
            share = rng.uniform(0.3, 1, 2)
            row["bbox"] = [x, y, width * share[0], height * share[1]]
            overlap = max(literal_iou(row["bbox"], own) for own in true.tolist())
            if min(abs(overlap - limit) for limit in (0.3, 0.5, 0.7)) > 0.03:
                break
        overlaps.append(overlap)
    found = score_boxes(written(tmp_path, rows), LISTS, "wsoleval-v1")
    expected = [100 * sum(overlap >= limit for overlap in overlaps) / len(rows) for limit in (0.3, 0.5, 0.7)]
    assert [found["box_acc_30"], found["gt_known_loc"], found["box_acc_70"]] == pytest.approx(expected)
    assert found["box_acc"] == pytest.approx(sum(expected) / 3)
    assert len(set(expected)) > 1


def test_of_several_boxes_the_protocol_says_which_counts(tmp_path: Path) -> None:
    rows = rows_of_truth()
    rows += [row | {"bbox": [0, 0, 1, 1], "score": 0.9} for row in rows]
    path = written(tmp_path, rows)
    assert score_boxes(path, LISTS, "wsoleval-v1")["gt_known_loc"] == 0  # the one with the highest score
    assert score_boxes(path, LISTS, "wsoleval-v2")["gt_known_loc"] == 100  # the best of all


def test_a_missing_box_is_an_error_or_a_miss(tmp_path: Path) -> None:
    path = written(tmp_path, rows_of_truth()[1:])
    with pytest.raises(InputError, match=f"1 of {len(IDS)} images have no box, first {IDS[0]}"):
        score_boxes(path, LISTS, "wsoleval-v1")
    found = score_boxes(path, LISTS, "wsoleval-v1", allow_missing=True)
    assert (found["missing"], found["gt_known_loc"]) == ([IDS[0]], pytest.approx(100 * (1 - 1 / len(IDS))))


def test_a_box_beyond_its_photo_is_clipped_and_counted(tmp_path: Path) -> None:
    rows = rows_of_truth()
    x, y, width, height = rows[0]["bbox"]
    rows[0]["bbox"] = [x - 30, y - 30, width + 30, height + 30]
    assert x < 30
    assert "beyond the photo" in score_boxes(written(tmp_path, rows), LISTS, "wsoleval-v1")["clipped_boxes"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"\[2\]\.bbox = \[1, 2, 3\]: expected \[x, y, width, height\]"),
        ({"bbox": [1, 2, 0, 4]}, r"\[2\]\.bbox = .* width and height above 0"),
        ({"bbox": [1, 2, "3", 4]}, r"\[2\]\.bbox = .*plain numbers"),
        ({"bbox": [float("nan"), 2, 3, 4]}, r"\[2\]\.bbox = "),
        ({"bbox": [9000, 2, 3, 4]}, "lies outside the"),
        ({"score": "high"}, r"\[2\]\.score = high: expected a number"),
        ({"image_id": 7}, r"\[2\]\.image_id = 7: the lists have no such image; their first is"),
        ({"image_width": 11, "image_height": 12}, "image_width, image_height = 11, 12: expected the photo's"),
        ({"image_width": 11}, "image_width and image_height as whole numbers, or neither"),
    ],
)
def test_a_bad_box_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = rows_of_truth()
    rows[2] |= change
    with pytest.raises(InputError, match=message):
        score_boxes(written(tmp_path, rows), LISTS, "wsoleval-v1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("{}", "expected a list of boxes"),
        ("[3]", r"\[0\]: expected an object with image_id and bbox, found 3"),
        ('[{"image_id": "a"}]', r"\[0\]: expected an object with image_id and bbox"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score_boxes(written(tmp_path, content), LISTS, "wsoleval-v1")


def test_the_command_takes_boxes_or_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, lists = str(written(tmp_path, rows_of_truth()[1:])), str(LISTS)
    assert cli.main(["score", "--boxes", path, "--metadata", lists, "--allow-missing", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["missing"] == 1
    assert "1 images have no box and count as missed" in told.err
    for options, message in (
        ([], "give either --maps or --boxes"),
        (["--maps", "m", "--boxes", path], "give either --maps or --boxes"),
        (["--boxes", path, "--masks", "m"], "leave out --val-maps and --masks"),
        (["--boxes", str(tmp_path / "none.json")], "no such file; `eil boxes` makes one"),
    ):
        assert cli.main(["score", "--metadata", lists, *options]) != 0
        assert message in capsys.readouterr().err
