"""The folder of a run: recipe.json, manifest.json, metrics.jsonl, best/, and last/ (from which a run resumes)."""

import io
import json
import platform
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from segformer.errors import UserError
from segformer.files import disk_errors, recover_folder, write_bytes, write_folder, write_json
from segformer.json_config import to_json

RECIPE = "recipe.json"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
TRAINER = "trainer.pt"
PACKAGES = ("segformer", "torch", "torchvision", "lightning-fabric", "numpy")


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, recipe: Any, *, resume: bool, read: Callable[[Path], Any]) -> None:
        """Start a new run in this folder, or check that the run in it can be resumed; ``read`` reads its recipe.json.

        Raises a UserError if a new run would start in a folder that is in use, or if the run to resume is missing or
        has another recipe.
        """
        path = self.path
        if resume:
            for folder in (self.last, self.best):  # before anything else reads them
                recover_folder(folder)
            if not (path / RECIPE).is_file():
                raise UserError(f"{path}: no run to resume; leave out --resume to start a new one")
            check_same(read(path / RECIPE), recipe, path)
            return
        if path.exists():
            clear_unsaved(path)
        write_json(path / RECIPE, to_json(recipe))

    @property
    def best(self) -> Path:
        """Folder of the best model."""
        return self.path / "best"

    @property
    def last(self) -> Path:
        """Folder of the state after the last evaluation or interruption."""
        return self.path / "last"

    def write_manifest(self, facts: dict[str, Any]) -> None:
        """Write manifest.json: versions, machine and the given facts."""
        write_json(self.path / MANIFEST, {**environment(), **facts})

    def save_last(self, trainer: dict[str, Any], write: Callable[[Path], None]) -> None:
        """Replace the folder ``last`` atomically by the training state and the files that ``write`` creates in it."""
        buffer = io.BytesIO()
        torch.save(trainer, buffer)

        def fill(partial: Path) -> None:
            write(partial)
            write_bytes(partial / TRAINER, buffer.getvalue())

        write_folder(self.last, fill)

    def load_trainer(self) -> dict[str, Any] | None:
        """Return the training state saved in ``last``, or None if nothing was saved yet.

        Raises a UserError that names trainer.pt if this file is missing or damaged.
        """
        if not self.last.exists():
            return None
        path = self.last / TRAINER
        if not path.is_file():
            raise UserError(f"{path} is missing, and the run cannot resume without it; start a new run")
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, UnpicklingError, EOFError) as error:
            raise UserError(f"{path}: damaged, expected the saved state of a run; start a new run") from error
        return state

    def log(self, values: dict[str, Any]) -> None:
        """Append these values to metrics.jsonl as one line."""
        path = self.path / METRICS
        with disk_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def drop_after(self, step: int) -> None:
        """Remove the lines about steps after ``step`` from metrics.jsonl; the resumed run writes them again."""
        lines = [json.dumps(line) for line in read_metrics(self.path) if line["step"] <= step]
        write_bytes(self.path / METRICS, "".join(line + "\n" for line in lines).encode())


def clear_unsaved(path: Path) -> None:
    """Remove the folder of a run that failed before its first save; raises a UserError if it contains other files."""
    if not path.is_dir() or {p.name for p in path.iterdir()} - {RECIPE, MANIFEST, METRICS, TENSORBOARD, "wandb"}:
        raise UserError(f"{path} already exists; resume its run with --resume, or choose another --run-dir")
    shutil.rmtree(path)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl as dicts, up to a line that is incomplete because the run was killed."""
    path = run / METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    parsed = []
    for line in lines:
        try:
            parsed.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return parsed


def check_same(old: Any, new: Any, path: Path) -> None:
    """Raise a UserError that names the fields in which two recipes differ, apart from ``description`` and ``paper``."""
    before = flatten(to_json(old))
    after = flatten(to_json(new))
    compared = [key for key in before if key not in ("description", "paper")]
    changed = [f"{key} was {before[key]}, is now {after[key]}" for key in compared if before[key] != after[key]]
    if changed:
        raise UserError(
            f"{path}: --resume continues with the run's own recipe, but {'; '.join(changed[:3])}; "
            f"leave out RECIPE and these options, or start a new run with --run-dir"
        )


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a flat dict whose keys are the nested keys joined with dots.

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result


def environment() -> dict[str, Any]:
    """Return the versions of Python and packages, the Git commit, the platform and the number of threads."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": current_commit(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }


def current_commit() -> str | None:
    """Return the Git commit of the current directory, or None outside a repository."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
