"""What users hand to MaxBoxAcc and eil score: tensors, lists, and boxes beyond their image."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eil.commands import cli
from eil.core.files import InputError
from eil.data.readers import wsoleval
from eil.evaluation import score
from eil.evaluation.score import MaxBoxAcc

LISTS = Path(__file__).parents[1] / "data" / "wsol_miniature" / "test"
SIDE = 32
RNG = np.random.default_rng(0)
MAPS = RNG.random((6, 7, 7)).astype(np.float16)  # of few enough bits for every type but bfloat16
TRUE = np.array([[3.0 + k, 4, 20 + k, 25] for k in range(6)])


def curves(score_maps: Any, true: Any) -> np.ndarray:
    metric = MaxBoxAcc("wsoleval-v2", side=SIDE)
    metric.update(score_maps, true)
    return metric.image_results().curve


TENSORS: dict[str, tuple[Any, Any]] = {
    "stacked": (torch.from_numpy(MAPS), torch.from_numpy(TRUE)),
    "float32": (torch.from_numpy(MAPS).float(), torch.from_numpy(TRUE).float()),
    "float64": (torch.from_numpy(MAPS).double(), torch.from_numpy(TRUE).long()),
    "with gradients": (torch.from_numpy(MAPS).float().requires_grad_(), torch.from_numpy(TRUE).requires_grad_()),
    "a result with gradients": (torch.from_numpy(MAPS).float().requires_grad_() * 1, torch.from_numpy(TRUE)),
    "a list": (list(torch.from_numpy(MAPS).requires_grad_()), [torch.from_numpy(own)[None] for own in TRUE]),
    "a tuple": (tuple(torch.from_numpy(MAPS)), tuple(TRUE)),
    "lists of lists": (MAPS.tolist(), [[own] for own in TRUE.tolist()]),
    "one box a list": (MAPS, TRUE.astype(int).tolist()),
    "a list of tensors' lists": (MAPS, [[torch.from_numpy(own).requires_grad_()] for own in TRUE]),
    "(B, K, 4)": (MAPS, torch.from_numpy(TRUE)[:, None]),
    "not contiguous": (torch.from_numpy(MAPS.transpose(2, 1, 0).copy()).permute(2, 1, 0), TRUE),
    "fortran": (np.asfortranarray(MAPS), np.asfortranarray(TRUE)),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_and_lists_score_as_arrays_do(kind: str) -> None:
    np.testing.assert_array_equal(curves(*TENSORS[kind]), curves(MAPS, [own[None] for own in TRUE]))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.uint8, torch.int32, torch.int64, torch.bool])
def test_tensors_of_any_type_have_the_values_that_they_hold(kind: torch.dtype) -> None:
    tensor = (torch.from_numpy(MAPS).float() * (1.5 if kind == torch.bool else 200)).to(kind)
    tensor[:, 0, 0], tensor[:, 3, 3] = 0, 1
    expected = np.array([[[float(value) for value in row] for row in own] for own in tensor.tolist()])
    np.testing.assert_array_equal(curves(tensor, TRUE), curves(expected, TRUE))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_a_gpu_score_as_arrays_do() -> None:
    tensors = torch.from_numpy(MAPS).cuda(), torch.from_numpy(TRUE).cuda()
    np.testing.assert_array_equal(curves(*tensors), curves(MAPS, TRUE))
    np.testing.assert_array_equal(curves(*map(list, tensors)), curves(MAPS, TRUE))


@pytest.mark.parametrize(
    ("score_maps", "true", "message"),
    [
        (MAPS[:2], TRUE[:0], "2 maps for 0 images"),
        (torch.ones(()), TRUE, "expected a batch"),
        (MAPS[:1].astype(complex), TRUE[:1], "complex128, expected real numbers"),
        (torch.from_numpy(MAPS[:1]).to(torch.complex64), TRUE[:1], "complex64, expected real numbers"),
        ([[[1, 2], [3]]], TRUE[:1], "not an array of numbers"),
        (MAPS[:1], [[["a", 1, 2, 3]]], "boxes must be"),
        (MAPS[:1], [[[np.nan, 1, 2, 3]]], "expected x0 <= x1"),
        (MAPS[:1], [None], "boxes must be"),
        (torch.full((1, 3, 3), torch.nan, dtype=torch.bfloat16), TRUE[:1], "NaN or infinity"),
        (MAPS[:1, None], TRUE[:1], r"shape \(1, 7, 7\), expected \(height, width\)"),
    ],
)
def test_what_is_no_batch_is_refused(score_maps: Any, true: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MaxBoxAcc(side=SIDE).update(score_maps, true)


def test_torch_is_not_imported_for_arrays() -> None:
    code = "import sys; from eil.evaluation.score import MaxBoxAcc; import numpy as np; m = MaxBoxAcc(side=8); "
    code += "m.update(np.eye(4)[None], [[[1, 1, 5, 5]]]); m.compute(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Boxes beyond the frame


def test_boxes_are_clipped_to_the_frame_and_it_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    beyond = [[[3.0, 4, 20, 25]], [[-6, 10, 20, 40], [1, 1, 32, 32]]]  # an end of 32 is a convention
    within = [[[3.0, 4, 20, 25]], [[0, 10, 20, 31], [1, 1, 31, 31]]]
    metric, expected = MaxBoxAcc(side=SIDE), MaxBoxAcc(side=SIDE)
    metric.update(MAPS[:2], beyond)
    expected.update(MAPS[:2], within)
    assert (metric.overhang.boxes, metric.overhang.beyond, metric.overhang.pixels) == (3, 1, 8)
    assert expected.overhang.beyond == 0
    with caplog.at_level(logging.WARNING):
        assert metric.compute() == expected.compute()
        metric.compute()
    assert [record.message for record in caplog.records] == [metric.overhang.remark]
    assert metric.overhang.remark.startswith("1 of 3 ")
    metric.reset()
    assert metric.overhang.boxes == 0
    with pytest.raises(InputError, match=r"true\[1\] in the 32-pixel frame: box .* nothing of it is left"):
        metric.update(MAPS[:2], [TRUE[0], [40, 3, 50, 20]])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Maps, and lists of 200 images of 100 x 60 with a box each."""
    names = [f"{k}.jpg" for k in range(200)]
    (tmp_path / "maps").mkdir()
    (tmp_path / "lists").mkdir()
    for k, name in enumerate(names):
        np.save(tmp_path / "maps" / f"{name}.npy", np.random.default_rng(k).random((5, 7)))
    for file, rest in {"image_ids": "", "class_labels": ",0", "image_sizes": ",100,60"}.items():
        (tmp_path / "lists" / f"{file}.txt").write_text("\n".join(name + rest for name in names))
    (tmp_path / "lists" / "localization.txt").write_text("\n".join(f"{name},10,5,79,49" for name in names))
    return tmp_path


def spoil(place: Path, file: str, old: str, new: str, count: int) -> None:
    path = place / "lists" / f"{file}.txt"
    path.write_text(path.read_text().replace(old, new, count))


def command(place: Path) -> list[str]:
    return ["score", "--maps", str(place / "maps"), "--metadata", str(place / "lists"), "--json"]


def test_eil_score_clips_boxes_and_tells(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clipped = Path(shutil.copytree(place, place / "clipped"))
    spoil(clipped, "localization", "0.jpg,10,5,79,49", "0.jpg,10,5,99,49", 1)
    spoil(place, "localization", "0.jpg,10,5,79,49", "0.jpg,10,5,112,49", 1)
    assert cli.main(command(clipped)) == 0
    expected = json.loads(capsys.readouterr().out)
    assert expected["clipped_boxes"] == ""
    assert cli.main(command(place)) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    remark = found.pop("clipped_boxes")
    assert remark.startswith("1 of 200 ")
    assert "the worst by 12 pixels" in remark
    assert remark.endswith("localization.txt: 0.jpg")
    assert err.count(remark) == 1
    assert found == {key: value for key, value in expected.items() if key != "clipped_boxes"}
    assert cli.main(command(place)[:-1]) == 0  # as text
    out, err = capsys.readouterr()
    assert remark in err
    assert "clipped_boxes: 1 of 200" in out


@pytest.mark.parametrize(
    ("file", "old", "new", "count", "messages"),
    [
        ("localization", "10,5,79,49", "-5000,5,79,49", 1, ["worst by 5000 pixels", "localization.txt: 0.jpg"]),
        ("localization", "10,5,79,49", "10,5,109,49", 3, ["3 of 200 boxes reach beyond", "worst by 9 pixels"]),
        ("image_sizes", ",100,60", ",60,100", -1, ["200 of 200 boxes reach beyond", "width and height swapped"]),
        ("localization", "10,5,79,49", "110,5,179,49", 1, ["localization.txt: 0.jpg: box", "nothing of it is left"]),
    ],
    ids=["far beyond", "more than one in a hundred", "swapped sizes", "outside"],
)
def test_eil_score_refuses_lists_that_look_swapped(
    place: Path, file: str, old: str, new: str, count: int, messages: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(place, file, old, new, count)
    assert cli.main(command(place)) == 1
    err = capsys.readouterr().err
    for message in [*messages, "are width and height swapped in"]:
        assert message in err


def test_val_boxes_are_clipped_alike(place: Path) -> None:
    val = Path(shutil.copytree(place, place / "val"))
    spoil(val, "localization", "0.jpg,10,5,79,49", "0.jpg,10,5,112,49", 1)
    found = score.score(place / "maps", place / "lists", "val-threshold", (val / "maps", val / "lists"))
    assert f"{val / 'lists' / 'localization.txt'}: 0.jpg" in found["clipped_boxes"]


def test_maps_score_the_same_from_files_as_from_arrays(place: Path) -> None:
    found = score.score(place / "maps", place / "lists", "wsoleval-v2")
    metric = MaxBoxAcc("wsoleval-v2")
    names = wsoleval.lists(place / "lists").ids
    true = np.trunc(np.array([10, 5, 79, 49]) * 224 / np.array([100, 60, 100, 60]))
    metric.update([np.load(place / "maps" / f"{name}.npy") for name in names], [true] * 200)
    assert metric.compute().items() <= found.items()
