"""A study without a shared disk: files travel through a storage, here S3 (moto's server) and a folder (rsync)."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflows import PROGRAMS, ROOT, finished, study

pytestmark = pytest.mark.slow
MACHINES = Path(__file__).parent / "machines"  # an executor whose jobs run in empty folders
BUCKET = ["--default-storage-provider", "s3", "--default-storage-prefix", "s3://studies/mine"]
RUNS = ("vgg_small-cam-seed0", "vgg_small-has-seed0")


def needs(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: pip install -c constraints.txt -e '.[storage,storage-test]'")


@pytest.fixture
def tiny(content: dict[str, Any]) -> dict[str, Any]:
    content["recipe"] |= {"epochs": 20, "milestones": [15]}
    return content | {"methods": {"cam": {}, "has": {}}, "seeds": 1}


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 server on a free port of the loopback; yields the studies' bucket."""
    needs("snakemake_storage_plugin_s3", "moto", "flask")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"ENDPOINT_URL": f"http://127.0.0.1:{port}", "ACCESS_KEY": "any", "SECRET_KEY": "any"}
    for name, value in settings.items():
        monkeypatch.setenv(f"SNAKEMAKE_STORAGE_S3_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    import boto3

    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (tmp_path / "moto.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_until(lambda: answers(port), server)
            address = settings["ENDPOINT_URL"]
            s3 = boto3.resource("s3", endpoint_url=address, aws_access_key_id="any", aws_secret_access_key="any")
            yield s3.create_bucket(Bucket="studies")
        finally:
            server.kill()


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(ready: Callable[[], object], process: subprocess.Popen[Any], seconds: float = 1200) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < end, "took too long"
        time.sleep(0.05)


def started(clone: Path, *arguments: str) -> subprocess.Popen[str]:
    """Snakemake in a copy of the workflow; its jobs run in empty folders below `machines`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{PROGRAMS}"  # as in an image in which eil is installed
    environment = os.environ | {
        "PATH": path,
        "FOLDERS": str(clone / "machines"),
        "XDG_CACHE_HOME": str(clone / "cache"),
    }
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(MACHINES), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "snakemake", "--executor", "folders", "--jobs", "1", "--cores", "1"]
    return subprocess.Popen(
        [*command, "--configfile", "tiny.yaml", *BUCKET, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=clone,
        env=environment,
        start_new_session=True,
    )


def done(process: subprocess.Popen[str]) -> str:
    with process:
        output = process.communicate(timeout=3000)[0]
    assert process.returncode == 0, output
    return output


def tables(folder: Path) -> dict[str, bytes]:
    """All tables but that of times and peak memory."""
    return {
        each.name: each.read_bytes() for each in folder.iterdir() if each.suffix == ".csv" and each.stem != "provenance"
    }


def test_a_study_through_s3_is_killed_goes_on_and_equals_a_local_one(
    tmp_path: Path, tiny: dict[str, Any], bucket: Any
) -> None:
    (tmp_path / "local").mkdir()
    finished(tmp_path / "local", *study(tmp_path, tiny), timeout=1200)
    expected = tables(tmp_path / "local/results/tiny/tables")
    clone, machines = tmp_path / "clone", tmp_path / "clone/machines"
    for name in ("workflow", "profiles"):
        shutil.copytree(ROOT / name, clone / name)
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, clone)
    (clone / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    machines.mkdir()

    def training() -> set[str]:
        return {path.parent.name for path in machines.glob("train-*/**/last.ckpt")}

    def trained() -> dict[str, Any]:
        found = bucket.objects.filter(Prefix="mine/results/tiny/runs/")
        return {each.key.split("/")[-2]: each.last_modified for each in found if each.key.endswith(".safetensors")}

    process = started(clone)
    wait_until(lambda: training() - trained().keys() and trained(), process, 3000)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    shutil.rmtree(machines)  # lost, with the checkpoint of the training
    machines.mkdir()
    before = trained()
    assert len(before) == 1 and before.keys() < set(RUNS)
    done(started(clone, "--unlock"))
    output = done(started(clone))
    assert "results: s3://studies/mine/results/tiny\n" in output
    assert before.items() <= trained().items()  # what was finished was not done again
    for each in bucket.objects.filter(Prefix="mine/results/tiny/"):
        path = tmp_path / "copy" / each.key
        path.parent.mkdir(parents=True, exist_ok=True)
        bucket.download_file(each.key, str(path))
    copy = tmp_path / "copy/mine/results/tiny"
    assert tables(copy / "tables") == expected
    drawn, expected_names = (
        {path.name for path in (folder / "figures").glob("*.*g")} for folder in (copy, tmp_path / "local/results/tiny")
    )
    assert drawn == expected_names and len(drawn) > 10
    assert "Nothing to be done" in done(started(clone, "-n"))
    assert not list(machines.iterdir())


def test_a_study_through_a_folder_equals_a_local_one(tmp_path: Path, tiny: dict[str, Any]) -> None:
    needs("snakemake_storage_plugin_fs")
    if shutil.which("rsync") is None:
        pytest.skip("rsync is missing, which the storage plugin fs calls")
    tiny |= {"methods": {"cam": {}}, "controls": ["oracle_box"]}
    disk = tmp_path / "disk"
    for name in ("local", "apart"):
        (tmp_path / name).mkdir()
    arguments = study(tmp_path, tiny)
    finished(tmp_path / "local", *arguments, timeout=1200)
    storage = ["--default-storage-provider", "fs", "--default-storage-prefix", str(disk), "--shared-fs-usage", "none"]
    finished(tmp_path / "apart", *arguments, *storage, timeout=3000)
    assert tables(disk / "results/tiny/tables") == tables(tmp_path / "local/results/tiny/tables")
    assert not (tmp_path / "apart/results/tiny/runs").exists()
    assert "Nothing to be done" in finished(tmp_path / "apart", "-n", *arguments, *storage)
    assert "copy" in finished(tmp_path / "apart", "partial", *arguments, *storage, code=1)
