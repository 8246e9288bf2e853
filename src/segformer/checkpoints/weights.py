"""The weights of a model under this package's tensor names, read from any format."""

from dataclasses import dataclass

from torch import Tensor

from segformer.config import ModelCard, ModelConfig


@dataclass(frozen=True)
class Weights:
    """The tensors, configuration and card of a model; ``card`` is None if there is only an encoder."""

    source: str
    """Path or hub id from which the weights were read; used in messages."""
    config: ModelConfig
    card: ModelCard | None
    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    """One note for each thing that was left out or changed while reading."""
