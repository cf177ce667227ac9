"""Weights of the small backbones, trained on drawn birds of kinds 6 to 10, and how they are made: `make weights`.

That trains CAM by ``workflow/config/pretrain_birds.yaml`` and keeps what belongs to the backbone. Studies of up to five
kinds of birds, such as the demo, never show these birds; so a network starts there as others start from ImageNet.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save

_PREFIX = "backbone."


def keep_backbone(trained: Path, target: Path) -> None:
    """Copy the backbone's tensors of a run's weights.safetensors into a file of their own."""
    state = {name: value for name, value in load_file(trained).items() if name.startswith(_PREFIX)}
    target.write_bytes(save({name.removeprefix(_PREFIX): value for name, value in state.items()}))


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m eil.backbones.weights RUNS``: keep the backbones of CAM's first seed in the runs of a study."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("runs", type=Path)
    for run in sorted(parser.parse_args(arguments).runs.glob("*-cam-seed0")):
        name = run.name.removesuffix("-cam-seed0")
        keep_backbone(run / "weights.safetensors", Path(__file__).with_name(f"{name}-birds.safetensors"))
