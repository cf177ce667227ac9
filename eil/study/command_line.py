"""Keys of a study that are given on Snakemake's command line: ``--config seeds='[5, 6]' name=mine``."""

from collections.abc import Mapping, Sequence
from typing import Any

from eil.core import safe_yaml
from eil.core.files import InputError
from eil.study.study_paths import over


def typed(config: Mapping[str, Any], entries: Sequence[str] | None) -> dict[str, Any]:
    """Values as in a study's file. Snakemake makes text of each number in a list or a mapping.

    Args:
        config: what Snakemake read, by key.
        entries: as they were given, each ``KEY=VALUE``.

    Raises:
        InputError: a value of a kind that no study has, such as a tag; the message starts with "--config" and the key.
    """
    found = dict(config)
    read = dict[str, Any]()
    for entry in entries or ():
        key, _, text = entry.partition("=")
        if _is_text_alone(found.get(key)):
            try:
                value = safe_yaml.read(text.strip("'\""))  # these, Snakemake removes too
            except InputError as error:
                raise InputError(f"--config: {key}: {error}") from None
            read[key] = over(read.get(key), value)
    return found | read


def _is_text_alone(value: object) -> bool:
    """Whether a list or a mapping has nothing but text: programs that start Snakemake themselves may give numbers."""
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list) and all(isinstance(each, str) or _is_text_alone(each) for each in value)
