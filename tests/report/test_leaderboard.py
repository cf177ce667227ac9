"""The leaderboard: the committed page is the command's, and ours stands beside the same data, backbone and method."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from eil.commands import cli
from eil.core.files import InputError
from eil.report import leaderboard
from eil.report.published import NETWORKS, Published, read

ROOT = Path(__file__).parents[2]
HEADER = "Backbone,Method,GT-known Loc ↑,GT-known Loc ↑ ±,MaxBoxAccV2 ↑,MaxBoxAccV2 ↑ ±,Seeds\n"


def published(**changes: object) -> Published:
    row = {"dataset": "CUB", "backbone": "vgg16", "method": "CAM", "metric": "GT-known Loc", "value": 61.5}
    row |= {"protocol": "a protocol", "source": "a paper", "status": "read", "layout": "", "threshold": "test"}
    return Published.model_validate(row | changes)


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Writes a main table and its study, and gives their folder."""

    def write(rows: str, date: str = "2027-01-02", **changes: object) -> Path:
        dataset = {"name": "wsoleval", "benchmark": "CUB"}
        recipe = {"epochs": 1, "milestones": []}
        study = {"name": "s", "dataset": dataset, "backbones": ["vgg16"], "methods": {"cam": {}}, "recipe": recipe}
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(study | changes))
        (tmp_path / f"s-h100-1-bf16-{date}-main.csv").write_text(HEADER + rows, encoding="utf-8")
        return tmp_path

    return write


def ours(folder: Path, row: Published, methods: tuple[str, ...] = ("cam",)) -> str:
    """The last cell of a published row."""
    page = leaderboard.page([row], leaderboard.read_ours(folder, folder), methods, ["vgg16"])
    line = next(line for line in page.splitlines() if line.endswith(" |") and "| a protocol |" in line)
    return line.split(" | ")[-1].removesuffix(" |")


def test_the_committed_page_is_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    out = tmp_path / "page.md"
    assert cli.main(["leaderboard", "--out", str(out)]) == 0
    committed = (ROOT / "docs/leaderboard.md").read_text(encoding="utf-8")
    assert out.read_text(encoding="utf-8") == committed, "run `eil leaderboard --out docs/leaderboard.md`"


def test_every_published_score_has_its_row() -> None:
    page = leaderboard.page(read(), [], ["cam"], ["vgg16"])
    sections = page.split("\n## Gaps")[0].splitlines()
    assert sum(line.startswith("| ") and "(#sources)" in line for line in sections) == len(read())


def test_ours_stands_beside_the_same_with_its_interval(table: Callable[..., Path]) -> None:
    folder = table("vgg16,cam,60.04,2.5,50,1,3\nvgg16,control: gaussian,55,1,50,1,3\n")
    assert ours(folder, published()) == "60.0 ± 2.5 (s)"
    assert ours(folder, published(metric="MaxBoxAccV2")) == "50.0 ± 1.0 (s)"
    assert ours(folder, published(metric="PxAP", threshold="none")) == "awaits a GPU"
    assert ours(folder, published(dataset="ILSVRC")) == "awaits a GPU"
    assert ours(folder, published(method="TS-CAM")) == "no such method here"
    assert ours(folder, published(backbone="googlenet")) == "no such backbone here"
    assert ours(folder, published(backbone="")) == "network not stated"


def test_a_papers_transformer_is_timms(table: Callable[..., Path]) -> None:
    deit = NETWORKS["deit_small"]
    folder = table(f"{deit},cam,60,2,50,1,3\n", backbones=[deit])
    page = leaderboard.page([published(backbone="deit_small")], leaderboard.read_ours(folder, folder), ["cam"], [deit])
    assert "| CAM | deit_small | 61.5 | a protocol | test | [1](#sources) | 60.0 ± 2.0 (s) |" in page


def test_a_training_that_had_not_converged_is_found_and_marked(table: Callable[..., Path]) -> None:
    folder = table("vgg16,cam †,60.04,2.5,50,1,3\nvgg16,eil (gamma=0.7) †,61,2,50,1,3\n")
    assert ours(folder, published(), ("cam", "eil")) == "60.0 ± 2.5 † (s)"
    assert ours(folder, published(method="EIL"), ("cam", "eil")) == "61.0 ± 2.0 † (s)"


def test_of_a_grid_every_setting_is_named_and_the_latest_table_counts(table: Callable[..., Path]) -> None:
    table("vgg16,cam,11,1,50,1,3\n", date="2025-12-31")
    folder = table("vgg16,eil (gamma=0.7),60,2,50,1,3\nvgg16,eil (gamma=0.8),61,2,50,1,3\n")
    assert ours(folder, published(method="EIL"), ("cam", "eil")) == "60.0 ± 2.0 (s); 61.0 ± 2.0 (s)"
    assert ours(folder, published(), ("cam", "eil")) == "awaits a GPU"


def test_a_part_of_a_data_set_stands_by_itself(table: Callable[..., Path]) -> None:
    folder = table("vgg16,cam,60,2,50,1,3\n", dataset={"name": "cub", "classes": 20})
    assert ours(folder, published()) == "awaits a GPU"
    page = leaderboard.page([published()], leaderboard.read_ours(folder, folder), ["cam"], ["vgg16"])
    assert "| cub, 20 of 200 classes | vgg16 | cam | – | 60.0 ± 2.0 | 50.0 ± 1.0 | – | 3 | [s](" in page


def test_the_same_networks_in_two_studies_are_one_row(table: Callable[..., Path]) -> None:
    folder = table("vgg16,cam,60,2,50,1,3\nvgg16,eil,61,2,50,1,3\n", dataset={"name": "cub", "classes": 20})
    (folder / "t.yaml").write_text((folder / "s.yaml").read_text().replace("name: s\n", "name: t\n"))
    again = HEADER + "vgg16,cam,60,2.2,50,1,3\nvgg16,eil,61.01,2,50,1,3\n"  # beside other rows intervals are others
    (folder / "t-h100-1-bf16-2027-01-03-main.csv").write_text(again, encoding="utf-8")
    lines = leaderboard.page([published()], leaderboard.read_ours(folder, folder), ["cam"], ["vgg16"]).splitlines()
    rows = [line for line in lines if line.startswith("| cub, 20")]
    assert [("[s](" in row, "[t](" in row) for row in rows] == [(True, True), (True, False), (False, True)]


def test_a_table_older_than_the_rule_of_convergence_is_marked(table: Callable[..., Path]) -> None:
    assert ours(table("vgg16,cam,60,2,50,1,3\n", date="2026-11-24"), published()) == "60.0 ± 2.0 ‡ (s)"


def test_what_is_composed_here_is_no_gap(table: Callable[..., Path]) -> None:
    folder = table("vgg16,cam,60,2,50,1,3\n")
    row = published(method="CAM + PC1")
    assert ours(folder, row) == "awaits a GPU: `cam` and `maps: [pc1]`"
    assert ours(folder, published(method="CAM + PC1", backbone="googlenet")) == "no such backbone here"
    assert "| CAM + PC1 | CUB |" not in leaderboard.page([row], [], ["cam"], ["vgg16"])
    assert leaderboard.COMPOSED.keys() <= {each.method for each in read()}


def test_a_table_under_an_oracles_threshold_is_left_out(table: Callable[..., Path]) -> None:
    folder = table("vgg16,cam,60,2,50,1,3\n", protocols=["wsoleval-v2"])
    assert leaderboard.read_ours(folder, folder) == []


def test_values_are_never_ranked_and_doubts_are_marked() -> None:
    rows = [
        published(value=v, method=m, status=s)
        for v, m, s in ((1, "B", "read"), (9, "C", "second hand"), (5, "A", "read"))
    ]
    rows.append(published(value=7, method="A", protocol="the last", threshold="none", status="conflicting"))
    lines = leaderboard.page(rows, [], [], []).splitlines()
    shown = [line.split(" | ")[:5] for line in lines if "(#sources) | no such" in line]
    assert [(cells[0], cells[2]) for cells in shown] == [
        ("| A", "5.0"), ("| B", "1.0"), ("| C", "9.0 (second hand)"), ("| A", "7.0 (sources conflict)"),
    ]  # fmt: skip
    assert [cells[4] for cells in shown] == ["test"] * 3 + ["–"]
    assert "| C | CUB | vgg16 | [1](#sources) |" in lines


def test_a_bad_table_is_named(table: Callable[..., Path], tmp_path: Path) -> None:
    folder = table("vgg16,cam,high,2,50,1,3\n")
    with pytest.raises(InputError, match=r"main\.csv:2: GT-known Loc ↑ = high: expected a number"):
        leaderboard.read_ours(folder, folder)
    shutil.move(folder / "s-h100-1-bf16-2027-01-02-main.csv", folder / "s-main.csv")
    with pytest.raises(InputError, match="expected a name like STUDY-PROCESSOR"):
        leaderboard.read_ours(folder, folder)
