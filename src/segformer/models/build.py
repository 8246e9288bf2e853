"""Build randomly initialized models from names, configurations and model cards."""

from typing import Any

from segformer.config import ModelCard, ModelConfig, Preprocessing
from segformer.errors import UserError
from segformer.json_config import from_json
from segformer.models.decoders import DECODERS
from segformer.models.encoders import ENCODERS
from segformer.models.segmenter import Segmenter
from segformer.validation import check_choice


def build_model(
    encoder: str | ModelConfig,
    decoder: str = "all_mlp",
    *,
    num_classes: int,
    preprocessing: Preprocessing | None = None,
    **options: Any,
) -> Segmenter:
    """Return a randomly initialized model.

    ``encoder`` is either the name of an encoder or a complete :class:`segformer.config.ModelConfig`.  With a name,
    ``decoder`` and ``options`` set fields of the ModelConfig; with a ModelConfig they are ignored.  Without
    ``preprocessing`` the model uses the default preprocessing for its number of channels.

    >>> import torch
    >>> build_model("mit_b0", num_classes=19)(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 19, 16, 24])
    """
    if num_classes < 1:
        raise UserError(f"num_classes must be at least 1, got {num_classes}")
    config = encoder if isinstance(encoder, ModelConfig) else model_config(encoder, decoder=decoder, **options)
    pixels = preprocessing or Preprocessing.for_channels(config.in_channels)
    return build_from_card(ModelCard.for_classes(config, num_classes, pixels))


def list_models() -> list[str]:
    """Return the names of the encoders that ``build_model`` accepts.

    >>> list_models()[:2]
    ['mit_b0', 'mit_b1']
    """
    return list(ENCODERS)


def model_config(encoder: str, **options: Any) -> ModelConfig:
    """Return the paper's configuration for an encoder; ``options`` override its fields."""
    check_choice("model.encoder", encoder, ENCODERS)
    values = {"encoder": encoder, "decoder_channels": ENCODERS[encoder].decoder_channels} | options
    return from_json(ModelConfig, values, "model")


def build_from_card(card: ModelCard) -> Segmenter:
    """Return a randomly initialized model with the architecture, classes and preprocessing of a model card."""
    check_card(card)
    config = card.model
    encoder = ENCODERS[config.encoder].build(config)
    num_logits = 1 if config.binary else len(card.classes)
    decoder = DECODERS[config.decoder].build(encoder.channels, encoder.strides, num_logits, config)
    return Segmenter(encoder, decoder, card)


def check_card(card: ModelCard) -> None:
    """Raise a UserError if a model card names an unknown part, or if its fields contradict one another."""
    config = card.model
    pixels = card.preprocessing
    check_choice("model.encoder", config.encoder, ENCODERS)
    check_choice("model.decoder", config.decoder, DECODERS)
    if config.binary and len(card.classes) != 2:
        raise UserError(f"model.binary needs two classes, got {len(card.classes)}; leave out model.binary")
    if not len(pixels.mean) == len(pixels.std) == config.in_channels:
        raise UserError(
            f"preprocessing.mean and .std must have model.in_channels = {config.in_channels} values, "
            f"got {len(pixels.mean)} and {len(pixels.std)}"
        )
