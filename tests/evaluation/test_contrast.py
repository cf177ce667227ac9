"""A map without contrast scores 0: in every type, size, protocol, order and normaliser, and in PxAP."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from eil.commands import cli
from eil.core.cell_grid import CellGrid
from eil.data import IGNORED
from eil.evaluation import boxes, maps, masks, protocols
from eil.evaluation.protocols import Protocol
from eil.evaluation.score import MaxBoxAcc

SIDE = 56
EPS32 = float(np.finfo(np.float32).eps)
TYPES = ["float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", ">f8", "bool"]
# The whole frame, its first pixel, its first four: what an empty box or a full one would find.
CORNERS = np.array([[0.0, 0, SIDE - 1, SIDE - 1], [0, 0, 0, 0], [0, 0, 1, 1]])
NORMALISERS: list[dict[str, Any]] = [
    {"normaliser": "min-max"},
    {"normaliser": "max"},
    {"normaliser": "pas", "percentile": 0.5},
    {"normaliser": "ivr", "percentile": 0.5},
]
CELLS = CellGrid((3.0, 0.0), (5.0, 4.0))  # for the protocol that needs to know where cells look


def scored(score_maps: Any, name: str) -> dict[str, float]:
    metric = MaxBoxAcc(name, side=SIDE, cells=CELLS)
    metric.update(score_maps, [CORNERS] * len(score_maps))
    assert metric.without_contrast == len(score_maps)
    return metric.compute(metric)


@pytest.mark.parametrize("name", list(protocols.read()))
def test_constant_maps_score_0_in_every_protocol(name: str) -> None:
    """The issue's own: 50 maps of 0.1, float64, 14 x 14, of which GT-known Loc was 100."""
    assert set(scored(np.full((50, 14, 14), 0.1), name).values()) == {0.0}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 7), (14, 14), (28, 28), (SIDE, SIDE), (61, 300)])
def test_constant_maps_score_0_in_every_type_and_size(kind: str, shape: tuple[int, int]) -> None:
    values = [0, 1] if kind == "bool" else [0, 1, 3, 100] if np.dtype(kind).kind in "iu" else [0.1, 1 / 3, -7.3, 1e4]
    score_maps = [np.full(shape, value, kind) for value in values]
    assert set(scored(score_maps, "wsoleval-v2").values()) == {0.0}


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.uint8])
def test_constant_tensors_score_0(kind: torch.dtype) -> None:
    assert set(scored(torch.full((3, 14, 14), 0.1).mul(30).to(kind), "wsoleval-v2").values()) == {0.0}


@pytest.mark.parametrize("order", ["resize-normalise", "normalise-resize"])
@pytest.mark.parametrize("interpolation", ["cubic", "linear"])
@pytest.mark.parametrize("normaliser", NORMALISERS, ids=lambda own: own["normaliser"])
@settings(deadline=None, max_examples=30)
@given(value=st.floats(-1e6, 1e6), height=st.integers(1, 40), width=st.integers(1, 40), side=st.integers(1, 64))
def test_constant_maps_have_no_foreground(
    order: Any, interpolation: Any, normaliser: dict[str, Any], value: float, height: int, width: int, side: int
) -> None:
    protocol = Protocol(source="x", order=order, interpolation=interpolation, **normaliser)
    assert not maps.prepared(np.full((height, width), value), side, protocol).any()


def test_noise_of_resizing_in_float32_is_no_contrast() -> None:
    """What users resize themselves before they save it."""
    for value in (0.1, 1 / 3, 1000.7, -2.1):
        noisy = [cv2.resize(np.full((14, 14), value, np.float32), (61, 90), interpolation=cv2.INTER_CUBIC)]
        small = torch.full((1, 1, 14, 14), value)
        for corners in (False, True):
            larger = torch.nn.functional.interpolate(small, size=(61, 90), mode="bicubic", align_corners=corners)
            noisy += [larger[0, 0].numpy(), larger[0, 0].double().numpy() / 3]
        assert any(own.max() > own.min() for own in noisy)
        assert set(scored(noisy, "wsoleval-v1").values()) == {0.0}


@pytest.mark.parametrize("value", [1.0, 0.1, -3.0, 1e6, 1e-6])
def test_the_tolerance_has_two_sides(value: float) -> None:
    for share, seen in ((31 * EPS32, False), (33 * EPS32, True)):
        m = np.full((14, 14), value)
        m[4:9, 4:9] = value * (1 - share)
        assert maps.has_contrast(m) == seen
        assert maps.to_8_bit(m, SIDE, protocols.find("val-threshold")).any() == seen


def test_a_small_contrast_on_a_large_offset_is_scored() -> None:
    """Of 1000 + [0, 0.01] the box is that of [0, 0.01]."""
    blob = np.zeros((14, 14))
    blob[3:9, 4:11] = 0.01
    for name in protocols.read():
        metric = MaxBoxAcc(name, side=SIDE, cells=CellGrid.half_pixel(blob.shape, SIDE))
        metric.update([1000 + blob, blob], [np.array([[15.0, 11, 44, 36]])] * 2)
        metric.compute(metric)
        assert metric.without_contrast == 0
        np.testing.assert_allclose(*metric.image_results().curve[:, 80:150], atol=0.03)
        assert metric.image_results().curve[0, 128] > 0.8


def test_a_detail_that_resizing_loses_leaves_no_contrast() -> None:
    m = np.full((400, 400), 0.1)
    m[1, 1] = 1.0  # between the pixels that are sampled
    for order in ("resize-normalise", "normalise-resize"):
        protocol = protocols.find("ts-cam").model_copy(update={"order": order})
        assert not maps.to_8_bit(m, 20, protocol).any()


def test_a_plateau_is_not_blown_up_by_its_normaliser() -> None:
    """Above the percentile there is rounding alone."""
    m = np.full((14, 14), 0.1)
    m[:2] = 0
    ivr = Protocol(source="x", interpolation="linear", normaliser="ivr", percentile=0.5)
    assert not maps.prepared(m, SIDE, ivr).any()
    pas = Protocol(source="x", interpolation="linear", normaliser="pas", percentile=0.05)
    np.testing.assert_array_equal(maps.prepared(m, SIDE, pas)[20:], 1)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**31), st.sampled_from(["float16", "float32", "float64"]), st.floats(-20, 20))
def test_maps_with_contrast_are_what_they_were_to_the_bit(seed: int, kind: str, exponent: float) -> None:
    """Resize, subtract the minimum, divide by the maximum: the benchmark's lines."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** (exponent / 10 if kind == "float16" else exponent)
    m = (rng.normal(size=rng.integers(2, 30, 2)) * scale).astype(kind)
    expected = cv2.resize(m.astype(np.float64), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_array_equal(maps.prepared(m, SIDE, protocols.find("val-threshold")), expected)


def test_pxap_counts_the_objects_of_maps_without_contrast_as_missed() -> None:
    """By hand: of 6 object pixels 4 are ranked first, 2 have a map without contrast."""
    mask = np.array([[1, 1, 0], [2, 1, IGNORED]], np.uint8)
    pooled = masks.PixelHistogram()
    pooled.add(np.array([[1.0, 0.9, 0.1], [0.8, 0.7, 1.0]]), mask)
    assert pooled.average_precision() == 100
    pooled.add(np.zeros((2, 3)), np.array([[1, 2, 0], [0, 0, IGNORED]], np.uint8))
    assert pooled.average_precision() == pytest.approx(100 * 4 / 6)
    assert pooled.iou()[500] == pytest.approx(100 * 4 / 6)
    nothing = masks.PixelHistogram()
    nothing.add(np.zeros((2, 3)), mask)
    assert nothing.average_precision() == 0
    assert nothing.iou().max() == 0
    assert nothing.objects == 4


def lists_of(folder: Path, count: int, masked: bool) -> list[str]:
    """Lists of images whose object is all of them, and maps of 0.1; the command that scores them."""
    names = [f"{k}.jpg" for k in range(count)]
    (folder / "maps").mkdir()
    (folder / "lists").mkdir()
    for name in names:
        np.save(folder / "maps" / f"{name}.npy", np.full((14, 14), 0.1))
    box = "m.png," if masked else "0,0,99,79"
    PILImage.fromarray(np.full((80, 100), 255, np.uint8)).save(folder / "m.png")
    lines = {"image_ids": "{}", "class_labels": "{},0", "localization": f"{{}},{box}"}
    lines |= {"image_sizes": "" if masked else "{},100,80"}
    for file, line in lines.items():
        (folder / "lists" / f"{file}.txt").write_text("\n".join(line.format(name) for name in names if line))
    command = ["score", "--maps", str(folder / "maps"), "--metadata", str(folder / "lists"), "--json"]
    return [*command, "--masks", str(folder)] if masked else command


@pytest.mark.parametrize("masked", [False, True], ids=["boxes", "masks"])
def test_eil_score_of_constant_maps_is_0_and_says_so(
    masked: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(lists_of(tmp_path, 50, masked)) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    scores = ("px_ap", "pixel_iou_best") if masked else ("gt_known_loc", "max_box_acc_v2")
    assert [found[key] for key in scores] == [0, 0]
    assert found["without_contrast"] == 50
    assert "50 maps have no contrast and find nothing" in err


def test_no_box_is_predicted_of_a_map_without_contrast() -> None:
    image = maps.to_8_bit(np.full((14, 14), 0.1), SIDE, protocols.find("val-threshold"))
    for protocol in protocols.read().values():
        assert boxes.predicted_boxes(image, 100, protocol).shape == (0, 4)
        for true in CORNERS:
            assert not boxes.iou_curve(image, true[None], protocol.contours, protocol.box_convention).any()
