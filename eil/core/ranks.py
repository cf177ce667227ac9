"""Which of the processes of one training this is, by what launched them; nothing here needs torch."""

import os


def rank() -> int:
    """Number of this process among those of one training, by what launched it; 0 if it is the only one."""
    if "RANK" in os.environ:  # torchrun
        return int(os.environ["RANK"])
    if started_by_slurm():
        return int(os.environ["SLURM_PROCID"])
    return int(os.environ.get("LOCAL_RANK", "0"))


def started_by_slurm() -> bool:
    """Whether srun started several tasks of one training."""
    return int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ


def started_from_outside() -> bool:
    """Whether this process is one of several that something else has started, with devices of their own."""
    return "RANK" in os.environ or "LOCAL_RANK" in os.environ or started_by_slurm()


def on_this_node(devices: int) -> int:
    """How many of a training's devices are on this machine."""
    outside = os.environ.get("LOCAL_WORLD_SIZE") or (started_by_slurm() and os.environ.get("SLURM_NTASKS_PER_NODE"))
    return int(outside or devices)
