"""Print docs/methods.md's table of parity: our networks in the benchmark's layout against plain layers.

``python tests/parity_table.py`` takes a minute. Each cell is the largest relative difference in losses, gradients,
logits and min-maxed maps, with the same weights and draws, in training and testing. HaS and CutMix use CAM's network.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "baselines")]

import test_reference_cam as cam  # noqa: E402
import test_reference_spg_acol as spg_acol  # noqa: E402
import torch  # noqa: E402

BACKBONES = ("vgg16", "resnet50", "inception_v3")


def of_cam(method: str, backbone: str, stride: int) -> float:
    """CAM's or ADL's largest difference."""
    at = cam.AT[backbone, stride] if method == "adl" else ()
    inception = backbone == "inception_v3"
    network = {**cam.WSOLEVAL_INCEPTION, "head_dropout": 0.0 if at else 0.5} if inception else {}
    settings = {"at": at, "gamma": cam.GAMMA, "drop_rate": cam.DROP_RATE} if at else {}
    model = cam.built(method, backbone, stride, settings, network)
    stages = tuple("head" if stage == "head_2" else stage for stage in at)
    reference = cam.Reference(backbone, stride, 0.5 if inception and not at else 0.0, stages).double()
    seeds = [cam.seed_of((True, False, True)), cam.seed_of((False, True, False))] if at else [0]
    return max(cam.differences(model, reference, seeds, cam.SIDE // stride))


def of_branches(method: str, backbone: str, stride: int) -> float:
    """ACoL's or SPG's largest difference."""
    ours, reference = spg_acol.both(method, backbone, stride)
    return max(max(spg_acol.differences(ours, reference, training).values()) for training in (True, False))


def main() -> None:
    torch.set_num_threads(2)
    cells = [(backbone, stride) for backbone in BACKBONES for stride in (16, 8)]
    print("| method |", " | ".join(f"`{backbone}` at {stride}" for backbone, stride in cells), "|")
    print("|---|" + "---|" * len(cells))
    rows = {"CAM, HaS, CutMix": ("cam", of_cam), "ADL": ("adl", of_cam)}
    rows |= {"ACoL": ("acol", of_branches), "SPG": ("spg", of_branches)}
    for label, (method, largest) in rows.items():
        found = []
        for backbone, stride in cells:
            torch.manual_seed(0)
            found.append(f"{largest(method, backbone, stride):.0e}")
        print(f"| {label} |", " | ".join(found), "|", flush=True)


if __name__ == "__main__":
    main()
