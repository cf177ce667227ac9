"""Maps and weights that anyone may have written: read right, or refused with the file's name; nothing is run."""

import contextlib
import hashlib
import io
import json
import math
import pickle
import re
import shutil
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import JSON, File, damaged, fuzz, outcome, relisted, spoilt, thoroughly
from hypothesis import strategies as st
from safetensors.torch import load_file

from eil import backbones
from eil.backbones import pretrained
from eil.commands import cli
from eil.core import npz
from eil.core.files import InputError, read_arrays, write_arrays
from eil.core.run import Run
from eil.data.readers import wsoleval
from eil.evaluation import iou_curves, protocols, score
from eil.training import checkpoint, train, train_step

pytestmark = [pytest.mark.usefixtures("bounded_memory"), pytest.mark.filterwarnings("ignore:Detected pickle protocol")]
# Those that score any maps; the others need to know where the maps' cells look.
PROTOCOLS = [name for name, protocol in protocols.read().items() if protocol.alignment == "grid"]
LISTS = Path(__file__).parents[1] / "data" / "wsol_miniature" / "test"


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """A random map for each image of the miniature lists; compiled code is warm."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(wsoleval.lists(LISTS).ids):
        path = tmp_path / "maps" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rng.random((5 + k, 7)).astype([np.float16, np.float32, np.float64][k % 3]))
    for protocol in PROTOCOLS:
        score.score(tmp_path / "maps", LISTS, protocol, (tmp_path / "maps", LISTS), side=16)
    return tmp_path / "maps"


def require_scored(maps: Path, lists: Path, protocol: str) -> None:
    """Scores are percentages, or an error names one of the files."""
    found = outcome(
        lambda: score.score(maps, lists, protocol, (maps, lists), maps, 16),
        str(maps),
        str(lists),
        "image_ids.txt",
        "image_sizes.txt",
    )
    for key, value in (found or {}).items():
        assert key in ("protocol", "images", "missing", "clipped_boxes") or 0 <= value <= 100, (key, value)


@thoroughly(30, 2000)
def test_spoilt_lists_of_maps(inputs: int, maps: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(LISTS, tmp_path / "lists"))
    lists = {path: path.read_bytes() for path in sorted(folder.iterdir())}

    def holds(change: tuple[Path, bytes], protocol: str) -> None:
        change[0].write_bytes(change[1])
        try:
            require_scored(maps, folder, protocol)
        finally:
            change[0].write_bytes(lists[change[0]])

    changes = st.sampled_from(list(lists)).flatmap(lambda path: st.tuples(st.just(path), relisted(lists[path])))
    fuzz(inputs, holds, changes, st.sampled_from(PROTOCOLS))


# Maps


def npy(array: Any) -> bytes:
    """An array as numpy writes it, objects as pickles."""
    with io.BytesIO() as file:
        np.save(file, array, allow_pickle=True)
        return file.getvalue()


def headed(header: str, payload: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    """A .npy of any header."""
    text = header.encode("latin-1", "replace") + b"\n"
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(2 if version == (1, 0) else 4, "little") + text + payload


def declared(kind: str, shape: tuple[int, ...], there: int) -> bytes:
    """A .npy that declares this, and holds so many bytes."""
    return headed(repr({"descr": kind, "fortran_order": False, "shape": shape}), bytes(there))


@st.composite
def any_npy(draw: st.DrawFn) -> bytes:
    """A .npy that declares any shape and type, and holds any number of bytes."""
    sides = st.integers(-3, 10) | st.sampled_from([2**16, 2**31, 2**40, 2**62, 2**63, 2**64, 10**30])
    shape = tuple(draw(st.lists(sides, max_size=4) | st.lists(st.integers(1, 4), min_size=2, max_size=2)))
    kinds = [
        "<f4",
        "<f8",
        "<f2",
        "<f16",
        ">f8",
        "<c8",
        "|O",
        "|u1",
        "|i1",
        "<u8",
        "<U5",
        "<U0",
        "|V0",
        "|V9",
        "<M8[s]",
        "|b1",
    ]
    kind = draw(st.sampled_from([*kinds, "", "<x9", "f8,O", [("a", "<f8")], [("a", "|O")], ("<f8", (2**40,)), None, 7]))
    exact = math.prod(shape) * 8 if 0 < math.prod(shape) < 2000 else 40
    payload = (
        draw(st.binary(max_size=80))
        if draw(st.booleans())
        else draw(st.sampled_from([b"\0", b"\x7f", b"?", b"\x01"])) * exact
    )
    header = repr({"descr": kind, "fortran_order": draw(st.sampled_from([True, False, 1, None])), "shape": shape})
    odd = [
        "",
        "(" * 500,
        "-" * 5000,
        "{",
        "'",
        "\\",
        "'''",
        "1 +",
        "\t 1\n  2",
        "{'descr'}",
        "[" * 9000,
        "\0",
        "x" * 70_000,
    ]
    if draw(st.integers(0, 4)) == 0:
        header = draw(st.sampled_from(odd) | st.text(max_size=30))
    return (
        headed(header, payload, draw(st.sampled_from([(1, 0), (2, 0), (3, 0), (9, 9)])))
        if len(header) < 60_000
        else b""
    )


MAPS = [
    *(npy(np.ones((3, 4))), npy(np.zeros((1, 1))), npy(np.full((2, 2), np.nan)), npy(np.array([[{}]], dtype=object))),
    *(npy(np.ones((0, 4))), npy(np.ones((1, 40_000))), npy(np.array([[1e308, -1e308]])), npy(np.array([[5e-324, 0]]))),
    *(
        npy(np.array([[1e100, -1e100, 0]])),
        npy(np.array([[2**63 - 1, -(2**63)]])),
        npy(np.arange(6, dtype=np.int8).reshape(2, 3)),
    ),
    *(b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x93NUMPY", pickle.dumps({}), b"\x1f\x8b"),
    *(npy(np.float32(1)), npy(np.array([[True, False]])), npy(np.array([[1j]])), npy(np.array([["a"]]))),
    npy(np.random.default_rng(0).random((9, 7)).astype(np.float16)),
]


@thoroughly(60, 2500)
def test_spoilt_maps(inputs: int, maps: Path) -> None:
    path = maps / "b" / "three.jpg.npy"

    def holds(content: bytes, protocol: str) -> None:
        path.write_bytes(content)
        require_scored(maps, LISTS, protocol)
        with contextlib.suppress(InputError):
            found = score._load(path, allow_missing=False)
            assert found is not None
            assert np.array_equal(found, np.load(path).astype(np.float64))

    contents = st.one_of(
        any_npy(), st.sampled_from(MAPS), st.sampled_from(MAPS).flatmap(damaged), st.binary(max_size=30)
    )
    fuzz(inputs, holds, contents, st.sampled_from(PROTOCOLS))


ARRAYS: dict[str, Any] = {
    "val_maps": np.random.default_rng(0).random((3, 4, 4)).astype(np.float32),
    "val_logits": np.zeros((3, 2), np.float32),
    "test_maps": np.ones((4, 4, 4), np.float32),
    "test_logits": np.zeros((4, 2), np.float32),
    "examples": np.arange(2),
    "extra_erased": np.ones((2, 4, 4), np.float32),
}
SPLITS: Any = {"val": SimpleNamespace(ids="abc"), "test": SimpleNamespace(ids="abcd")}


def bomb(declared: int, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of 8 MB of zeros, whose directory says that there are ``declared`` bytes."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr("test_maps.npy", npy(np.zeros(2**20)))
        found = file.getvalue()
    size = struct.pack("<I", len(npy(np.zeros(2**20))))
    return File(found.replace(size, struct.pack("<I", declared)) if declared else found)


@thoroughly(40, 2000)
def test_spoilt_archives_of_maps(inputs: int, tmp_path: Path) -> None:
    path = tmp_path / "maps.npz"

    def holds(content: bytes) -> None:
        path.write_bytes(content)
        found = outcome(lambda: read_arrays(path, max_bytes=2**22), path.name)
        assert sum(array.nbytes for array in (found or {}).values()) <= 2**22
        assert not any(array.dtype.hasobject for array in (found or {}).values())

    def zipped(members: dict[str, bytes]) -> bytes:
        with io.BytesIO() as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in members.items():
                    archive.writestr(name, content)
            return file.getvalue()

    write_arrays(path, ARRAYS)
    whole = File(path.read_bytes())
    inner = st.one_of(any_npy(), st.sampled_from(MAPS), st.sampled_from(MAPS).flatmap(damaged))
    made = st.dictionaries(st.sampled_from(["a.npy", "a", "../../x.npy", "/x.npy"]), inner, max_size=3).map(zipped)
    bombs = st.sampled_from(
        [bomb(0), bomb(2**32 - 2), bomb(2**31), bomb(100), bomb(0, zipfile.ZIP_LZMA), bomb(0, zipfile.ZIP_BZIP2)]
    )
    fuzz(
        inputs,
        holds,
        st.one_of(damaged(whole), damaged(whole), made, bombs, bombs.flatmap(lambda each: damaged(each, 300))),
    )
    assert sorted(each.name for each in tmp_path.parent.rglob("x.npy")) == []


@thoroughly(30, 500)
def test_archives_of_other_arrays(inputs: int, tmp_path: Path) -> None:
    path = tmp_path / "maps.npz"

    def holds(key: str, other: Any) -> None:
        content = {name: array for name, array in (ARRAYS | {key: other}).items() if array is not None}
        write_arrays(path, content)
        found = outcome(lambda: iou_curves.read_maps(path, SPLITS, 4, 2), path.name)
        if found is not None:
            for name, split in SPLITS.items():
                assert len(found[f"{name}_maps"]) == len(found[f"{name}_logits"]) == len(split.ids)

    others = [
        None,
        np.ones(3),
        np.ones((4, 2)),
        np.ones((3, 2), int),
        np.array(["a", "b"]),
        np.array([0, 9]),
        np.ones((3, 0, 4)),
    ]
    any_array = st.lists(st.integers(0, 5), max_size=4).map(lambda shape: np.zeros(shape, np.float32))
    fuzz(inputs, holds, st.sampled_from([*ARRAYS, "extra_x", "x"]), st.sampled_from(others) | any_array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (declared("<f8", (2**40, 8), 64), "and 64 bytes follow"),
        (declared("<f8", (-1, -8), 64), "and 64 bytes follow"),
        (declared("|V0", (2**40, 8), 0), "and 0 bytes follow"),
        (npy(np.array([[{}]], dtype=object)), "pickled objects"),
        (npy(np.ones((1, 8193))), "no side may be longer than 8192"),
    ],
)  # fmt: skip
def test_absurd_maps_are_refused_before_memory_is_taken(content: bytes, message: str, maps: Path) -> None:
    (maps / "b" / "three.jpg.npy").write_bytes(content)
    with pytest.raises(InputError, match=message):
        score.score(maps, LISTS, "wsoleval-v2")
    assert cli.main(["score", "--maps", str(maps), "--metadata", str(LISTS)]) == 1


def test_an_archive_that_unpacks_to_more_than_is_expected_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "maps.npz"
    path.write_bytes(bomb(0))
    assert path.stat().st_size < 20_000
    assert read_arrays(path)["test_maps"].size == 2**20
    with pytest.raises(
        InputError, match=r"maps\.npz: not a readable .npz of plain arrays: declares 0\.00839 GB unpacked"
    ):
        read_arrays(path, max_bytes=2**20)
    path.write_bytes(bomb(2**31))
    with pytest.raises(InputError, match="declares 2.15 GB unpacked, expected at most 1.07 GB"):
        read_arrays(path)
    assert npz.MAX_BYTES == 2**30


# Weights


@pytest.fixture
def model(runs: dict[str, Run], images: Path) -> tuple[Run, Any, Any]:
    run = runs["vgg_small-eil-gamma0.6-sigma1-seed0"]
    model = train_step.build(run, images)
    return run, model, torch.optim.SGD(train_step.parameter_groups(model, run.recipe), momentum=0.9)


class Evil:
    """Runs code if it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.canary,)


@thoroughly(25, 1500)
def test_spoilt_weights(inputs: int, model: tuple[Run, Any, Any], tmp_path: Path) -> None:
    path, (run, network, _) = tmp_path / "weights.safetensors", model
    train.save_weights(path, network, run)
    whole = File(path.read_bytes())
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])

    def reheaded(content: Any) -> bytes:
        text = json.dumps(content).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + length :]

    def holds(content: bytes) -> None:
        path.write_bytes(content)
        done = outcome(lambda: train.load_weights(path, network, run) or True, path.name)
        if done:
            found = load_file(path)
            assert all(
                torch.equal(value, found[name].to(value.dtype)) or found[name].isnan().any()
                for name, value in network.state_dict().items()
            )

    fuzz(
        inputs, holds, st.one_of(damaged(whole, 8 + length), spoilt(header, JSON).map(reheaded), st.binary(max_size=40))
    )


@thoroughly(25, 1500)
def test_spoilt_checkpoints(inputs: int, model: tuple[Run, Any, Any], tmp_path: Path) -> None:
    path, (run, network, optimizer) = tmp_path / "last.ckpt", model
    state = checkpoint.State(1, 1, ["total"], [[0.5]], best=0.5, history=[{"epoch": 1, "total": 0.5}])
    checkpoint.save(tmp_path, run, network, optimizer, state)
    whole = File(path.read_bytes())
    content = torch.load(path, weights_only=True)
    rest = {key: value for key, value in content.items() if key in ("key", "state", "random_cuda")}

    def saved(other: Any, legacy: bool) -> bytes:
        with io.BytesIO() as file:
            torch.save(
                content | other if isinstance(other, dict) else other, file, _use_new_zipfile_serialization=not legacy
            )
            return file.getvalue()

    def holds(each: bytes) -> None:
        path.write_bytes(each)
        random = torch.get_rng_state()
        try:
            state = outcome(lambda: checkpoint.resume(tmp_path, run, network, optimizer), path.name)
        finally:
            torch.set_rng_state(random)
        if state is not None:
            assert isinstance(state.epoch, int)
            assert train._finished(state, run.recipe) in (True, False)

    fuzz(
        inputs,
        holds,
        st.one_of(damaged(whole, 3000), st.builds(saved, spoilt(rest, JSON), st.booleans()), st.binary(max_size=40)),
    )


@thoroughly(25, 1000)
def test_spoilt_pretrained_weights(inputs: int, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2, 3)}, tmp_path / "whole.pth")
    torch.save({"a": torch.ones(2, 3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    whole, old = (File((tmp_path / name).read_bytes()) for name in ("whole.pth", "old.pth"))
    evil = [pickle.dumps(Evil(tmp_path / "canary"), protocol) for protocol in range(6)]

    def holds(content: bytes, suffix: str) -> None:
        path = tmp_path / f"weights.{suffix}"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        outcome(lambda: backbones.read_local(f"{path}@sha256:{digest}"), path.name)
        assert not (tmp_path / "canary").exists()

    contents = st.one_of(
        damaged(whole),
        damaged(old),
        st.sampled_from(evil).flatmap(damaged),
        st.sampled_from(evil),
        st.binary(max_size=40),
    )
    fuzz(inputs, holds, contents, st.sampled_from(["pth", "safetensors"]))


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_is_unpickled_but_tensors(
    legacy: bool, model: tuple[Run, Any, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, network, optimizer = model
    path, canary = tmp_path / "last.ckpt", tmp_path / "canary"
    torch.save({"key": run.key, "model": Evil(canary)}, path, _use_new_zipfile_serialization=not legacy)
    refused = "getattr was not an allowed global by default"
    assert checkpoint.resume(tmp_path, run, network, optimizer) == checkpoint.State()
    assert re.search(rf"last\.ckpt cannot be read \(.*{refused}\.\): ignored", caplog.text)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(InputError, match=rf"last\.ckpt: not a file of weights: .* {refused}\. Only tensors are"):
        backbones.read_local(f"{path}@sha256:{digest}")
    with pytest.raises(InputError, match=f"sha256 {digest}, expected {'0' * 64}"):
        backbones.read_local(f"{path}@sha256:{'0' * 64}")
    with pytest.raises(InputError, match=r"last\.ckpt: not a safetensors file"):
        train.load_weights(path, network, run)
    assert not canary.exists()
    torch.load(path, weights_only=False)  # it is what it is taken for
    assert canary.exists()


def test_a_checkpoint_of_another_network_is_refused(model: tuple[Run, Any, Any], tmp_path: Path) -> None:
    run, network, optimizer = model
    checkpoint.save(tmp_path, run, network, optimizer, checkpoint.State(epoch=1))
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    torch.save(content | {"model": {"a": torch.ones(1)}}, tmp_path / "last.ckpt")
    with pytest.raises(
        InputError, match=r"last\.ckpt: not a checkpoint; delete it to train from the start: RuntimeError: .*"
    ):
        checkpoint.resume(tmp_path, run, network, optimizer)


@pytest.mark.parametrize("content", [{"features.0.weight": torch.ones(1)}, [torch.ones(1)], torch.ones(2)])
def test_pretrained_weights_of_another_network_are_refused(content: Any, tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    path = tmp_path / "other.pth"
    torch.save(content, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(
        InputError, match=r"other\.pth(@sha256:.*: not squeezenet1_1's|: not a file of weights): expected "
    ):
        pretrained.load_torchvision(squeezenet1_1(), "squeezenet1_1", f"{path}@sha256:{digest}")
