"""Work in many pieces: how its progress is reported, and how it is kept so that it can be interrupted and resumed."""

import io
import json
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segformer.arrays import Array
from segformer.errors import UserError
from segformer.files import read_json, write_bytes, write_json

OnProgress = Callable[[int, int], None]
"""Called with (pieces done, pieces in all)."""

IDENTITY = "identity.json"
SAVE_EVERY = 30.0  # seconds between two states of a long work


class Store:
    """A folder that keeps the finished pieces of one work, and knows what that work is.

    ``identity`` is everything that the result depends on, as JSON; only a work of the same identity takes up the
    pieces.  ``folder`` None keeps nothing.  Raises a UserError that names the first difference where the folder
    holds another work.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any], *, work: str, remedy: str) -> None:
        """``work`` is what to call it in an error, such as "evaluation"; ``remedy`` is what the user can do."""
        self.folder = folder
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))  # as it is read back: tuples become lists
        self.work = work
        self.remedy = remedy
        self.saved_at = time.monotonic()
        if folder is not None and (folder / IDENTITY).is_file():
            self._check(read_json(folder / IDENTITY))

    def _check(self, kept: Any) -> None:
        theirs = kept if isinstance(kept, dict) else {}
        for name, ours in self.identity.items():
            if name not in theirs or theirs[name] != ours:
                raise UserError(
                    f"{self.folder} holds another {self.work}: {name} is {theirs.get(name, 'unknown')} there and "
                    f"{ours} here; {self.remedy}"
                )

    def path(self, name: str) -> Path:
        """Where a piece lies; the folder and its identity are written first where they are missing."""
        assert self.folder is not None
        if not (self.folder / IDENTITY).is_file():
            write_json(self.folder / IDENTITY, self.identity)
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether a piece was kept."""
        return self.folder is not None and (self.folder / IDENTITY).is_file() and (self.folder / name).is_file()

    def is_due(self) -> bool:
        """Whether the last save is so long ago that the next one should follow."""
        return self.folder is not None and time.monotonic() - self.saved_at > SAVE_EVERY

    def save_json(self, name: str, values: Any) -> None:
        """Keep a piece as JSON."""
        if self.folder is not None:
            write_json(self.path(name), values)

    def load_json(self, name: str) -> Any:
        """Return a kept piece; raises a UserError that names a damaged file."""
        return read_json(self.path(name))

    def save_arrays(self, name: str, arrays: Mapping[str, Array]) -> None:
        """Keep named arrays, all at once."""
        if self.folder is None:
            return
        buffer = io.BytesIO()
        named: dict[str, Any] = dict(arrays)
        np.savez_compressed(buffer, **named)
        write_bytes(self.path(name), buffer.getvalue())
        self.saved_at = time.monotonic()

    def load_arrays(self, name: str) -> dict[str, Array]:
        """Return kept arrays; raises a UserError that names a damaged file."""
        path = self.path(name)
        try:
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
            raise UserError(f"{path}: damaged, expected what an interrupted {self.work} left; {self.remedy}") from error

    def remove(self) -> None:
        """Remove the folder, once the work is finished."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
