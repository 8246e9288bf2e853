"""A Fabric logger for Weights & Biases; the optional library is imported when a logger is created."""

import hashlib
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric.loggers.logger import Logger
from numpy.typing import NDArray


class WandbLogger(Logger):
    """Logs a run to a Weights & Biases project; a run that is resumed continues its earlier entry in the project.

    The environment variables of the library apply.  For example, WANDB_MODE=offline keeps all files in the run folder.
    """

    def __init__(self, project: str, folder: Path, config: dict[str, Any]) -> None:
        import wandb

        identity = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
        self._image = wandb.Image
        self._run: Any = wandb.init(
            project=project, name=folder.name, dir=folder, id=identity, resume="allow", config=config
        )

    @property
    def name(self) -> str:
        """Name of the project."""
        return str(self._run.project)

    @property
    def version(self) -> str:
        """Id of the run."""
        return str(self._run.id)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log the metrics of a step."""
        self._run.log(metrics, step=step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Add values to the run's configuration."""
        self._run.config.update(vars(params) if isinstance(params, Namespace) else params, allow_val_change=True)

    def log_picture(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Log a picture.  (H, W, 3) uint8"""
        self._run.log({name: self._image(picture)}, step=step)

    def finalize(self, status: str) -> None:
        """End the run; any ``status`` except "" and "success" marks the run as failed."""
        self._run.finish(exit_code=0 if status in ("", "success") else 1)
