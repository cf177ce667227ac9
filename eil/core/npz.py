"""Read arrays from untrusted files: compare the size that a header declares with the file before allocating memory.

numpy trusts the headers of arrays and archives, so a file of a kilobyte can request any amount of memory. Pickles are
refused, and so are archives that would unpack to more than the caller expects.
"""

import math
import os
import zipfile
from collections.abc import Container
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
MAX_BYTES: Final = 2**30  # bytes that an archive may unpack to by default
_HEADERS: Final = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_npy(path: Path) -> Array:
    """Read the array of an ``.npy`` file.

    Raises:
        OSError: no such file.
        ValueError: a damaged file, a pickle, or a header that does not match the size of the file.
    """
    with path.open("rb") as file:
        return _read(file, os.fstat(file.fileno()).st_size)


def read_npz(path: Path, max_bytes: int = MAX_BYTES, only: Container[str] | None = None) -> dict[str, Array]:
    """Read the arrays of an ``.npz`` file by name.

    Args:
        path: the file.
        max_bytes: largest total size of the arrays in bytes.
        only: names of the arrays to read (default: all).

    Raises:
        OSError: no such file.
        ValueError: as in :func:`read_npy`, or the archive is damaged or larger than ``max_bytes``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {member: member.filename.removesuffix(".npy") for member in archive.infolist()}
            members = {member: name for member, name in names.items() if only is None or name in only}
            if (declared := sum(member.file_size for member in members)) > max_bytes:
                raise ValueError(
                    f"declares {declared / 1e9:.3g} GB unpacked, expected at most {max_bytes / 1e9:.3g} GB"
                )
            if odd := next((each.filename for each in members if each.compress_type not in _METHODS), None):
                raise ValueError(f"{odd!r} has a compression that numpy does not write")
            found = {}
            for member, name in members.items():
                with archive.open(member) as file:
                    found[name] = _read(file, member.file_size)
            return found
    except (OSError, ValueError):
        raise
    except Exception as error:  # a damaged zip file raises many unrelated exceptions
        raise ValueError(f"not an archive of arrays: {error}") from None


def _read(file: IO[bytes], size: int) -> Array:
    """Read the array of a file of ``size`` bytes."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the format, which no plain array needs")
        shape, _, kind = _HEADERS[version](file)
    except ValueError:
        raise
    except Exception as error:  # numpy parses the header as Python literals and does not catch the parser's errors
        raise ValueError(f"its header cannot be parsed: {type(error).__name__}: {error}") from None
    if kind.hasobject:
        raise ValueError("it holds pickled objects")
    declared, there = math.prod(shape) * kind.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or not kind.itemsize or declared != there:
        raise ValueError(f"its header declares {kind} of shape {shape}, and {there} bytes follow")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)
