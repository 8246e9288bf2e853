"""The folder of a run: recipe.json, manifest.json, metrics.jsonl, last/ (resumable), best/ (a model folder)."""

import io
import json
import platform
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from segformer.checkpoints.model_folder import save, write_model
from segformer.config import to_json
from segformer.errors import UserError
from segformer.files import disk_errors, recover_folder, write_bytes, write_folder, write_json
from segformer.models.segmenter import Segmenter
from segformer.recipes import read_recipe

RECIPE, MANIFEST, METRICS, TENSORBOARD = "recipe.json", "manifest.json", "metrics.jsonl", "tensorboard"
TRAINER = "trainer.pt"
PACKAGES = ("segformer", "torch", "torchvision", "lightning-fabric", "numpy")


class RunFolder:
    """Reads and writes one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, recipe: Any, *, resume: bool, read: Callable[[Path], Any] = read_recipe) -> None:
        """Start a run or go on with one; raises an error where there is one already, none, or another recipe's."""
        path = self.path
        if resume:
            for folder in (self.last, self.best):  # before anyone asks what is there
                recover_folder(folder)
            if not (path / RECIPE).is_file():
                raise UserError(f"{path}: no run to go on with; leave out --resume to start a new one")
            check_same(read(path / RECIPE), recipe, path)
            return
        if path.exists():
            clear_unsaved(path)
        write_json(path / RECIPE, to_json(recipe))

    @property
    def best(self) -> Path:
        """Model folder of the best evaluation."""
        return self.path / "best"

    @property
    def last(self) -> Path:
        """Resumable state of the last evaluation or interruption; also a model folder."""
        return self.path / "last"

    def write_manifest(self, facts: dict[str, Any]) -> None:
        """Record versions, hardware and what the caller adds."""
        write_json(self.path / MANIFEST, {**environment(), **facts})

    def save_last(self, model: Segmenter, trainer: dict[str, Any]) -> None:
        """Write the model and the state of its training, all or nothing."""
        buffer = io.BytesIO()
        torch.save(trainer, buffer)

        def write(partial: Path) -> None:
            write_model(model, partial)
            write_bytes(partial / TRAINER, buffer.getvalue())

        write_folder(self.last, write)

    def load_trainer(self) -> dict[str, Any] | None:
        """Return the state of the training in ``last``, or None where the run was never saved."""
        if not self.last.exists():
            return None
        state: dict[str, Any] = torch.load(self.last / TRAINER, map_location="cpu", weights_only=True)
        return state

    def save_best(self, model: Segmenter) -> None:
        """Replace the best model."""
        save(model, self.best)

    def log(self, values: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        path = self.path / METRICS
        with disk_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop lines of metrics.jsonl beyond a step, which a resumed run will write again, and a torn last line."""
        lines = [json.dumps(line) for line in read_metrics(self.path) if line["step"] <= step]
        write_bytes(self.path / METRICS, "".join(line + "\n" for line in lines).encode())


def clear_unsaved(path: Path) -> None:
    """Remove a run that failed before its first save; raises UserError where anything of worth is there."""
    if {p.name for p in path.iterdir()} - {RECIPE, MANIFEST, METRICS, TENSORBOARD, "wandb"}:
        raise UserError(f"{path} exists already; go on with --resume, or give another --run-dir")
    shutil.rmtree(path)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl; a last line that a kill tore is left out."""
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
    """Raise a UserError that names the fields in which a run's recipe was changed."""
    before, after = flat(to_json(old)), flat(to_json(new))
    changed = [f"{key} was {before[key]}, is {after[key]}" for key in before if before[key] != after[key]]
    if changed:
        raise UserError(
            f"{path}: --resume goes on with the run's own recipe, but {'; '.join(changed[:3])}; "
            f"undo that (or leave RECIPE and options out), or start a new run with --run-dir"
        )


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result


def environment() -> dict[str, Any]:
    """Versions and hardware."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": commit(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """Git commit of the working folder, or None where there is none."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
