"""Arrays from files of anyone: what a header declares is held against the bytes that there are before memory is taken.

numpy itself believes the header, and an archive's: a file of a kilobyte can ask for any amount of memory. Pickles are
refused, as are archives whose members could unpack to more than their reader expects.
"""

import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
MOST: Final = 2**30  # bytes that an archive may unpack to, unless its reader expects more
_HEADERS: Final = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_npy(path: Path) -> Array:
    """The array of an ``.npy``.

    Raises:
        OSError: no such file.
        ValueError: a damaged file, a pickle, or a header that declares more or less than follows it.
    """
    with path.open("rb") as file:
        return _read(file, os.fstat(file.fileno()).st_size)


def read_npz(path: Path, most: int = MOST) -> dict[str, Array]:
    """The arrays of an ``.npz`` by their names.

    Args:
        path: of the file.
        most: bytes that they may have together.

    Raises:
        OSError: no such file.
        ValueError: as :func:`read_npy`, or an archive that is damaged, or larger than that.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if (declared := sum(member.file_size for member in members)) > most:
                raise ValueError(f"declares {declared / 1e9:.3g} GB unpacked, where {most / 1e9:.3g} are the most")
            if odd := next((each.filename for each in members if each.compress_type not in _METHODS), None):
                raise ValueError(f"{odd!r} is compressed as no .npz is")
            found = {}
            for member in members:
                with archive.open(member) as file:
                    found[member.filename.removesuffix(".npy")] = _read(file, member.file_size)
            return found
    except (OSError, ValueError):
        raise
    except Exception as error:  # a damaged zip raises half a dozen unrelated kinds
        raise ValueError(f"not an archive of arrays: {error}") from None


def _read(file: IO[bytes], size: int) -> Array:
    """The one array of a file of ``size`` bytes."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the format, which no plain array needs")
        shape, _, kind = _HEADERS[version](file)
    except ValueError:
        raise
    except Exception as error:  # numpy parses the header as Python's own literals, and lets its parser's errors out
        raise ValueError(f"its header cannot be parsed: {type(error).__name__}: {error}") from None
    if kind.hasobject:
        raise ValueError("it holds pickled objects")
    declared, there = math.prod(shape) * kind.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or not kind.itemsize or declared != there:
        raise ValueError(f"its header declares {kind} of shape {shape}, and {there} bytes follow")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)
