"""Initialize a model for fine-tuning with the weights of another model, as far as they fit."""

from torch import Tensor

from segformer.checkpoints.weights import Weights
from segformer.errors import UserError
from segformer.models.segmenter import Segmenter


def initialize(model: Segmenter, weights: Weights) -> list[str]:
    """Copy all weights that fit into a model.

    Returns the notes of ``weights``, then a note if the first convolution was adapted to another number of channels,
    and a note that names the layers that were initialized at random, if there are any.  Raises a UserError if the
    encoders differ.
    """
    ours, theirs = model.card.model, weights.config
    if theirs.encoder != ours.encoder:
        raise UserError(
            f"{weights.source} has the encoder {theirs.encoder}, but the model has {ours.encoder}; "
            f"set model.encoder to {theirs.encoder}"
        )
    state = dict(weights.state)
    notes = list(weights.notes)
    if theirs.decoder != ours.decoder:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("decoder.")}
    if theirs.in_channels != ours.in_channels:
        stem = f"encoder.{model.encoder.first_convolution()}.weight"
        state[stem] = adapt_channels(state[stem], ours.in_channels)
        notes.append(f"adapted the first convolution from {theirs.in_channels} to {ours.in_channels} channels")
    expected = model.state_dict()
    fitting = {name: tensor for name, tensor in state.items() if expected[name].shape == tensor.shape}
    random = sorted({name.rsplit(".", 1)[0] for name in expected.keys() - fitting.keys()})
    if random:
        notes.append(f"initialized at random: {', '.join(random)}")
    model.load_state_dict(fitting, strict=False)
    return notes


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Return the weight of a convolution, adapted to another number of input channels.

    Every new channel gets the mean weight of the old channels, multiplied by (old number / new number) of channels, so
    that the scale of the output stays the same.
    """
    mean = weight.mean(dim=1, keepdim=True) * (weight.shape[1] / channels)
    return mean.repeat(1, channels, 1, 1)
