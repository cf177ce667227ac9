"""Pretrained weights: torchvision's, or a local file whose hash is checked."""

import hashlib
import io
from pathlib import Path
from typing import TypeVar
from urllib.error import URLError

import safetensors.torch
import torch
from torch import Tensor, nn

from eil.backbones import state_dicts
from eil.backbones.base import Backbone
from eil.core.files import InputError
from eil.core.run import LOCAL_WEIGHTS
from eil.core.safe_yaml import in_a_line

# Pretrained classifiers are seldom used, so they may have any number of classes, or be missing.
_CLASSIFIERS = ("classifier.", "fc.", "AuxLogits.")
Network = TypeVar("Network", bound=nn.Module)


def load_torchvision(net: Network, name: str, weights: str | None, keep_classifier: bool = False) -> Network:
    """A network of torchvision, with weights of its enums or of a local file.

    Args:
        net: the network, with random weights; it may lack its classifier.
        name: of its function in torchvision.models.
        weights: name in the function's enum, ``FILE@sha256:HASH``, or None for the random weights.
        keep_classifier: whether a local file must have the classifier too.

    Raises:
        InputError: weights that cannot be fetched, or a file that does not fit the network.
    """
    import torchvision

    if weights is None:
        return net
    if LOCAL_WEIGHTS.fullmatch(weights):
        try:
            optional = ("AuxLogits.",) if keep_classifier else _CLASSIFIERS
            found = state_dicts.required_tensors(read_local(weights), net.state_dict(), optional)
            net.load_state_dict(found, strict=False)
        except state_dicts.IncompatibleTensors as error:
            raise InputError(f"pretrained weights {weights}: not {name}'s: {error}") from None
        return net
    entry = torchvision.models.get_model_weights(name)[weights]
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    try:
        state = entry.get_state_dict(check_hash=True, weights_only=True)
    except (URLError, OSError) as error:
        raise InputError(
            f"pretrained weights {entry} are missing and cannot be fetched ({error}); "
            f"download {entry.url} and put it at {place}"
        ) from None
    if missing := net.load_state_dict(state, strict=False).missing_keys:  # the net may lack what the file has
        raise InputError(f"pretrained weights {entry}: expected {len(missing)} more tensors, first {missing[0]}")
    return net


def load_packaged(backbone: Backbone, weights: str | None) -> Backbone:
    """The backbone with weights that come with this package, ``weights/NAME-WEIGHTS.safetensors``; None: unchanged.

    :mod:`eil.backbones.weights` says how they are made.
    """
    if weights is not None:
        path = Path(__file__).with_name("weights") / f"{backbone.name}-{weights}.safetensors"
        backbone.load_state_dict(safetensors.torch.load_file(path))
    return backbone


def read_local(weights: str, what: str = "pretrained weights") -> dict[str, Tensor]:
    """A state dict from ``FILE@sha256:HASH``, taken out of a checkpoint if necessary; only tensors are unpickled.

    Args:
        weights: file and hash.
        what: the file is, for messages.

    Raises:
        InputError: no such file, another hash, or no state dict in it.
    """
    path, expected = weights.rsplit("@sha256:", 1)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{what} {path}: {error.strerror}") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != expected.lower():
        raise InputError(f"{what} {path}: sha256 {digest}, expected {expected}")
    return tensors_of(data, f"{what} {path}")


def tensors_of(data: bytes, source: str) -> dict[str, Tensor]:
    """The state dict in a file's bytes, of safetensors or torch; only tensors are unpickled.

    Args:
        data: the file's content.
        source: the file, for messages.

    Raises:
        InputError: no state dict in it.
    """
    try:
        if data[8:9] == b"{":  # safetensors, whatever the file is called: 8 bytes of length, then JSON
            return state_dicts.unwrapped(safetensors.torch.load(data))
        return state_dicts.unwrapped(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except state_dicts.IncompatibleTensors as error:
        raise InputError(f"{source}: not a file of weights: {error}") from None
    except Exception as error:  # a damaged file raises many unrelated types
        raise InputError(f"{source}: not a file of weights: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Why a file was not read, and what to do about one that holds objects besides tensors."""
    text = in_a_line(error)
    if "not an allowed global" not in text:
        return text
    return (
        f"{text} Only tensors are unpickled here, since a pickle can run any code. If you trust the file, save its "
        "state dict alone in a new file (torch.load(FILE, weights_only=False), then torch.save), and give its hash"
    )


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of a module's weights, independent of any file."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
