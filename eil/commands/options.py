"""Options that the commands of a study share, and the study with the folders that they name."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

if TYPE_CHECKING:
    from eil.core.records import Record
    from eil.core.run import Run
    from eil.study.study import Study

FLAG = Parameter(negative="")  # --flag without --no-flag
MANY = Parameter(negative="", consume_multiple=True, show_default=False)  # --option 1 2 3


@Parameter(name="*")
@dataclass(frozen=True)
class Folders:
    """Where the files of a study are.

    Attributes:
        results: Results of the study; default: results/NAME.
        data: Decoded images of all studies.
        data_root: Folder of the data set; default: dataset.root of the study, else EIL_DATA.
    """

    results: Path | None = None
    data: Path = Path("results/data")
    data_root: Path | None = None


DEFAULT_FOLDERS = Folders()


@dataclass(frozen=True)
class OpenStudy:
    """A study, the file that it was read from, and its folders."""

    path: Path
    study: "Study"
    results: Path
    data: Path

    @property
    def runs_folder(self) -> Path:
        """The folder that contains the runs' folders."""
        return self.results / "runs"

    def folder(self, run: "Run") -> Path:
        """The run's folder."""
        return self.runs_folder / run.name

    def images(self, run: "Run") -> Path:
        """The folder of the run's decoded images."""
        return self.data / run.cache

    def runs(self) -> "list[Run]":
        """All runs of the study, without combinations that cannot be used."""
        return self._expanded

    @functools.cached_property
    def _expanded(self) -> "list[Run]":
        return self.study.expand(str(self.path))[0]  # of a large grid it takes seconds

    def split_by_data(self, runs: "Sequence[Run]", records: "Sequence[Record]") -> "tuple[list[Record], list[Record]]":
        """Records of the present data, and records of data that have changed since."""
        from eil.execution import data_state

        present = data_state.current_fingerprints(runs, self.data)
        outdated = data_state.made_from_changed_data(records, present)
        changed = set(map(id, outdated))
        return [record for record in records if id(record) not in changed], outdated

    def require_current(self, run: "Run", records: "Sequence[Record]") -> "list[Record]":
        """The records of a run, all of the present data.

        Raises:
            InputError: a record of data that have changed since.
        """
        from eil.core.files import InputError

        current, outdated = self.split_by_data([run], records)
        if outdated:
            raise InputError(
                f"{outdated[0].run.name}: was made from data that have changed since; run the study again, or "
                "`eil prepare`, `eil localize` and `eil evaluate`"
            )
        return current


def open_study(path: Path, folders: Folders) -> OpenStudy:
    """Read a study and resolve its folders.

    Raises:
        InputError: the study is missing or wrong.
    """
    from eil.core.files import expand_home
    from eil.study.study import load

    study = load(path)
    if folders.data_root is not None:
        root = expand_home(folders.data_root, "--data-root")
        study = study.model_copy(update={"dataset": study.dataset.model_copy(update={"root": root})})
    results = folders.results or Path("results") / study.name  # where the workflow writes them
    return OpenStudy(path, study, results, folders.data)
