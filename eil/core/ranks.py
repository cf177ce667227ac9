"""Rank and launcher of this process in a training on several devices, read from the environment; needs no torch."""

import os


def rank() -> int:
    """Rank of this process among those of one training; 0 for a single process."""
    if "RANK" in os.environ:  # torchrun
        return int(os.environ["RANK"])
    if launched_by_slurm():
        return int(os.environ["SLURM_PROCID"])
    return int(os.environ.get("LOCAL_RANK", "0"))


def launched_by_slurm() -> bool:
    """Whether srun launched several tasks of one training."""
    return int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ


def launched_externally() -> bool:
    """Whether torchrun, srun or Fabric launched this process as one of several, each with its own device."""
    return "RANK" in os.environ or "LOCAL_RANK" in os.environ or launched_by_slurm()


def local_devices(devices: int) -> int:
    """How many of a training's ``devices`` are on this machine."""
    external = os.environ.get("LOCAL_WORLD_SIZE") or (launched_by_slurm() and os.environ.get("SLURM_NTASKS_PER_NODE"))
    return int(external or devices)
