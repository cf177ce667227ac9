"""`eil backbones`: what there is, the stages of one, and names of timm."""

import pytest

from eil.commands import cli
from eil.core import registry


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert cli.main(["backbones", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def words(line: str) -> str:
    return " ".join(line.split())


def test_every_backbone_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    header, *rows, hint = lines(capsys)
    assert header.split()[:3] == ["backbone", "pretrained", "output_stride"]
    assert [row.split()[0] for row in rows] == registry.available(registry.BACKBONES)
    assert "timm/NAME.TAG" in hint
    (small,) = (row for row in rows if row.startswith("vgg_small"))
    assert words(small) == "vgg_small birds 4 6 64 x 56 x 56 at 224 conv3"


def test_stages_have_widths_strides_signs_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    title, header, *rows = lines(capsys, "resnet50", "--output-stride", "32")
    assert title.startswith(
        "resnet50: pretrained: IMAGENET1K_V1, IMAGENET1K_V2, FILE@sha256:HASH; output_stride: 16, 8"
    )
    assert header.split() == ["stage", "output", "stride", "non-negative", "default", "of"]
    assert words(rows[0]) == "stem 64 x 56 x 56 4 yes -"
    assert words(rows[13]) == "layer3_5 1024 x 14 x 14 16 yes eil, meil, spg"
    assert words(rows[16]) == "layer4_2 2048 x 7 x 7 32 yes adl"


def test_timms_names_and_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, "timm/deit_small_p*") == ["timm/deit_small_patch16_224.fb_in1k"]
    title, _, *rows = lines(capsys, "timm/test_vit.r160_in1k")
    assert title.endswith("input: mean 0.5, 0.5, 0.5, std 0.5, 0.5, 0.5")
    assert [words(row) for row in (rows[0], rows[-1])] == [
        "patch_embed 64 x 10 x 10 16 no -",
        "norm 64 x 10 x 10 16 no -",
    ]
    for name, message in (("timm/zz*", "no network of timm"), ("vgg17", "must be one of")):
        assert cli.main(["backbones", name]) == 1
        assert message in capsys.readouterr().err
