"""Weights & Biases as one more of Fabric's loggers; the optional library is imported when one is made."""

import hashlib
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric.loggers.logger import Logger
from numpy.typing import NDArray


class WandbLogger(Logger):
    """Logs a run to a project; a run folder is always the same run there, also when it is resumed.

    Settings are those of the library: WANDB_MODE=offline keeps everything below the run folder, for instance.
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
        """The project."""
        return str(self._run.project)

    @property
    def version(self) -> str:
        """Id of the run."""
        return str(self._run.id)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log figures of a step."""
        self._run.log(metrics, step=step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Add to the run's configuration."""
        self._run.config.update(vars(params) if isinstance(params, Namespace) else params, allow_val_change=True)

    def log_picture(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Log an image (H, W, 3) uint8."""
        self._run.log({name: self._image(picture)}, step=step)

    def finalize(self, status: str) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if status in ("", "success") else 1)
