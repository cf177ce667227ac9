"""A one-node SLURM from Debian's packages, without systemd: what tests need of a cluster, gone again afterwards.

    python tests/cluster/one_node.py up      # as root
    python tests/cluster/one_node.py down

The daemons are real; what the node says it has is not: GPUs, memory and processors are the scheduler's to count, so
that the profile's requests are granted on a small machine. Keys, ports and state are its own. Only the configuration
must lie where SLURM looks for it, since a job step does not inherit SLURM_CONF: a file there that this one did not
write is left alone, and nothing is started.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scancel")
STATE = Path("/run/eil-slurm")
CONFIG = Path("/etc/slurm")
MARK = "# Written by tests/cluster/one_node.py of eil, which takes it away again.\n"
CPUS = 4

SLURM_CONF = f"""{MARK}
ClusterName=eil
SlurmctldHost={{host}}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
# A requeued job waits until its old credential has expired: two minutes, if not told otherwise.
AuthType=auth/munge
AuthInfo=socket={STATE}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={STATE}/ctld
SlurmdSpoolDir={STATE}/d
SlurmctldPidFile={STATE}/slurmctld.pid
SlurmdPidFile={STATE}/slurmd.pid
SlurmctldLogFile={STATE}/slurmctld.log
SlurmdLogFile={STATE}/slurmd.log
# No control groups: a container has none to give.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=5
ReturnToService=2
GresTypes=gpu
# The node has what stands here, whatever it finds.
SlurmdParameters=config_overrides
NodeName={{host}} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory=1000000 Gres=gpu:{CPUS}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# Files in a GPU's place: slurmd counts them and never opens them.
GRES_CONF = f"{MARK}\nAutoDetect=off\nName=gpu File={STATE}/gpu[0-{CPUS - 1}]\n"


class NotReady(Exception):
    """No SLURM can be brought up here; the message says what to do."""


def up() -> None:
    """Start munged, slurmctld and slurmd, and wait until the node is idle.

    Raises:
        NotReady: not root, programs missing, a configuration that is not ours, or a node that does not come up.
    """
    if os.geteuid() != 0:
        raise NotReady("SLURM's daemons and /etc/slurm want root: run this as root, in a container or a test machine")
    _install()
    _refuse_a_real_cluster()
    down()
    for folder in (STATE, STATE / "ctld", STATE / "d", CONFIG):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    host = socket.gethostname().split(".")[0]
    (CONFIG / "slurm.conf").write_text(SLURM_CONF.format(host=host))
    (CONFIG / "gres.conf").write_text(GRES_CONF)
    for number in range(CPUS):
        (STATE / f"gpu{number}").touch()
    _run("mungekey", "--create", f"--keyfile={STATE}/munge.key")
    files = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed", "key-file": "key"}
    _run("munged", "--force", *(f"--{option}={STATE}/munge.{suffix}" for option, suffix in files.items()))
    _run("slurmctld")
    _run("slurmd")
    _wait(_idle, "the node is not idle")


def down() -> None:
    """Cancel what runs, stop the daemons, and remove what `up` wrote; nothing else."""
    if _pid("slurmctld"):
        subprocess.run(["scancel", "--user=root"], check=False, timeout=30)
        with contextlib.suppress(NotReady):  # a job that does not end must not keep the daemons
            _wait(_empty, "jobs do not end")
    for name in ("slurmd", "slurmctld", "munge"):
        if pid := _pid(name):
            os.kill(pid, signal.SIGTERM)
            _wait(lambda name=name: _pid(name) is None, f"{name} does not stop")
    for path in (CONFIG / "slurm.conf", CONFIG / "gres.conf"):
        if path.exists() and _ours(path):
            path.unlink()
    shutil.rmtree(STATE, ignore_errors=True)


def _install() -> None:
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Debian has daemons, and a user's PATH has not
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
    if os.environ.get("EIL_SLURM_INSTALL") != "1":
        raise NotReady(f"no {', '.join(missing)}: run `{' '.join(command)}`, or set EIL_SLURM_INSTALL=1")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "update"], command):
        subprocess.run(step, check=True, env=quiet, stdout=subprocess.DEVNULL)


def _refuse_a_real_cluster() -> None:
    for path in (CONFIG / "slurm.conf", CONFIG / "gres.conf"):
        if path.exists() and not _ours(path):
            raise NotReady(f"{path} is not of this test: this machine seems to belong to a real cluster, left alone")


def _ours(path: Path) -> bool:
    return path.read_text().startswith(MARK)


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if result.returncode:
        raise NotReady(f"{' '.join(command)}: {result.stdout}{result.stderr}")


def _pid(name: str) -> int | None:
    """The daemon that `up` started, unless it has ended and its number is another's."""
    try:
        pid = int((STATE / f"{name}.pid").read_text())
        alive = Path("/proc", str(pid), "comm").read_text().startswith(name)
    except (OSError, ValueError):
        return None
    return pid if alive else None


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.strip()


def _idle() -> bool:
    return _output("sinfo", "--noheader", "--format=%T") == "idle"


def _empty() -> bool:
    return not _output("squeue", "--noheader")


def _wait(condition: Callable[[], bool], otherwise: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = "".join(f"\n{path}:\n{path.read_text()[-2000:]}" for path in sorted(STATE.glob("*.log")))
            raise NotReady(f"{otherwise} after {seconds:.0f} seconds{logs}")
        time.sleep(0.2)


def main() -> None:
    """Bring the cluster up or down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("up", "down"))
    try:
        {"up": up, "down": down}[parser.parse_args().action]()
    except NotReady as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
