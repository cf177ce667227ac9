"""Networks without memory are checked without loading torch's compiler."""

import subprocess
import sys
from pathlib import Path

import torch

from eil import backbones
from eil.backbones.meta import meta_tensors
from eil.core import registry

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from pathlib import Path
from eil.study.study import load
runs, _ = load(Path("workflow/config/smoke.yaml")).expand("smoke")
assert runs and "torch" in sys.modules
assert "torch._dynamo" not in sys.modules and "sympy" not in sys.modules
"""


def test_to_check_a_study_loads_no_compiler() -> None:
    """It would take 1.4 s of each command and of each start of Snakemake; torchvision's networks load it anyway."""
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_shapes_are_those_of_a_network_with_memory() -> None:
    for name in registry.available(registry.BACKBONES):
        made, shapes = backbones.build(name).state_dict(), backbones.build_shapes(name).state_dict()
        assert {key: (value.shape, value.dtype) for key, value in made.items()} == {
            key: (value.shape, value.dtype) for key, value in shapes.items()
        }
        assert all(value.is_meta for value in shapes.values())


def test_stages_that_are_declared_grids_are() -> None:
    for name in registry.available(registry.BACKBONES):
        network = backbones.build_shapes(name)
        assert network.info.grids
        assert {len(shape) for shape in network._output_shapes} == {4}, name


def test_outside_the_block_tensors_are_filled() -> None:
    with meta_tensors():
        assert torch.nn.Linear(3, 2).weight.is_meta
    assert torch.nn.Linear(3, 2).weight.abs().sum() > 0
