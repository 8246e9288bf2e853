"""Weights under this package's names, wherever they come from."""

from dataclasses import dataclass

from torch import Tensor

from segformer.config import ModelCard, ModelConfig


@dataclass(frozen=True)
class Weights:
    """The tensors of a model and what is known about it; ``card`` is None for an encoder alone."""

    source: str
    """Path or hub id that they were read from, for messages."""
    config: ModelConfig
    card: ModelCard | None
    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    """What was left out or changed while reading, one line each."""
