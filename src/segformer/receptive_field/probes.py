"""Networks whose receptive fields are measured, called probes: a model, and the networks that it is compared with."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segformer.checkpoints.model_folder import load
from segformer.checkpoints.weight_files import read_checkpoint
from segformer.config import Size
from segformer.errors import UserError
from segformer.models.fused.segmenter import FusedSegmenter
from segformer.models.interfaces import Network
from segformer.models.layers import weights_digest
from segformer.models.segmenter import Segmenter
from segformer.receptive_field.field import Outputs
from segformer.validation import closest

DECODER = "decoder"
LOGITS = "logits"
NUM_MAPS = 4  # maps of a timm encoder that are used; some encoders have a fifth, finer map
SEED = 0  # for random weights, so that every run compares with the same network
DIGEST_LENGTH = 16  # hexadecimal digits


@dataclass(frozen=True, eq=False)
class Probe:
    """A network in evaluation mode, with everything that the measurement of its receptive fields needs."""

    label: str
    """Name of the network in results and messages."""
    outputs: Outputs
    """Function that computes the feature maps to measure."""
    normalize: Callable[[Tensor], Tensor]
    """Function that turns raw pixels into the network's input, on its device.  (C, H, W) -> (1, C, H, W)"""
    digest: str
    """Digest of the weights."""


class SegmenterOutputs:
    """Feature maps of a model: "stage 1" and so on from the encoder, and "decoder", the input of the classifier.

    The classifier is left out, because a 1 x 1 convolution does not enlarge a receptive field.

    The decoder's receptive field may be shifted up and to the left by half the stride of a coarse encoder map.  Each
    value of such a map covers a block of pixels.  The convolutions center the value on the top left corner of the
    block, but upsampling with align_corners=False assumes that the value belongs to the middle of the block.
    """

    def __init__(self, model: Segmenter | FusedSegmenter) -> None:
        self.encoder = model.encoder
        self.decoder = model.decoder
        self.dtype = next(model.encoder.parameters()).dtype

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Compute all maps with one pass through the encoder."""
        maps = self.encoder(images.to(self.dtype))
        return {**named_maps(maps), DECODER: self.decoder.features(maps)}


class TimmOutputs(nn.Module):
    """The last four feature maps of a timm encoder, named "stage 1" to "stage 4".

    The encoder must have been created with ``features_only``.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the maps; maps with channels last are permuted to channels first."""
        info = self.encoder.feature_info
        height = images.shape[2]
        maps = [
            features if is_channels_first(features, channels, math.ceil(height / stride)) else features.movedim(3, 1)
            for features, channels, stride in zip(self.encoder(images), info.channels(), info.reduction(), strict=True)
        ]
        return named_maps(maps[-NUM_MAPS:])


def is_channels_first(features: Tensor, channels: int, height: int) -> bool:
    """Return whether a map is channels-first, (B, C, h, w), rather than channels-last, (B, h, w, C).

    ``height`` is the expected h.  If the shape of the map fits both layouts, the map is channels-first only if its
    third dimension equals ``height``.
    """
    _, first, second, last = features.shape
    return first == channels and (last != channels or second == height)


def named_maps(maps: Sequence[Tensor]) -> dict[str, Tensor]:
    """Name the maps of an encoder "stage 1", "stage 2" and so on; the finest map comes first."""
    return {f"stage {number}": features for number, features in enumerate(maps, start=1)}


def probe_all(model: Network, label: str, compare: Sequence[str], size: Size) -> list[Probe]:
    """Return probes of a model and of the networks to compare it with, on the model's device.

    ``compare`` has the values of ``--compare``.  Raises a UserError if a network cannot be compared.
    """
    channels = model.card.model.in_channels
    if compare and channels != 3:
        raise UserError(f"--compare needs a model with 3 input channels, this one has {channels}; leave out --compare")
    probes = [probe_model(model, label), *(probe_named(spec, size, model.device) for spec in compare)]
    for number, probe in enumerate(probes):
        if probe.label in [other.label for other in probes[:number]]:
            raise UserError(f"--compare has {probe.label} twice; name it once")
    return probes


def probe_model(model: Network, label: str = "model") -> Probe:
    """Return a probe of a model, which is not changed.

    For a model of this package, the outputs are the maps of encoder and decoder; for any other, only "logits".
    """
    network = copy.deepcopy(model).eval().requires_grad_(False) if isinstance(model, Segmenter) else model

    def normalize(pixels: Tensor) -> Tensor:
        return network.normalize(pixels[None].to(network.device))

    def logits(images: Tensor) -> dict[str, Tensor]:
        return {LOGITS: network(images)}

    outputs = SegmenterOutputs(network) if isinstance(network, Segmenter | FusedSegmenter) else logits
    return Probe(label, outputs, normalize, network.fingerprint()[:DIGEST_LENGTH])


def probe_named(spec: str, size: Size, device: torch.device) -> Probe:
    """Return the probe for one value of ``--compare``: the path of a model, a timm encoder, or ENCODER=FILE.

    FILE contains the weights of the timm encoder.  Without it, the encoder has random weights, and its label says so;
    nothing is downloaded.  If the encoder is unknown, a UserError names the closest known encoder.
    """
    name, _, weights = spec.partition("=")
    if not weights and Path(spec).exists():
        other = load(spec, device)
        if other.card.model.in_channels != 3:
            raise UserError(f"--compare: {spec} takes {other.card.model.in_channels} channels, expected 3")
        return probe_model(other, spec)
    encoder, pretrained = timm_encoder(name, weights, size)
    network = TimmOutputs(encoder).to(device).eval().requires_grad_(False)
    mean, std = (255 * torch.tensor(v, device=device).view(-1, 1, 1) for v in (pretrained.mean, pretrained.std))
    digest = weights_digest(network)[:DIGEST_LENGTH]
    label = spec if weights else f"{name} (random weights)"
    return Probe(label, network, lambda pixels: (pixels.to(mean) - mean)[None] / std, digest)


def timm_encoder(name: str, weights: str, size: Size) -> tuple[Any, Any]:
    """Create a timm encoder; returns (encoder, timm's config with mean and std for pixels from 0 to 1)."""
    import timm

    if not timm.is_model(name):
        raise UserError(f"--compare: timm has no encoder '{name}'{closest(name, timm.list_models())}")
    pretrained: Any = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {"img_size": size} if pretrained.fixed_input_size else {}
    if weights:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": timm_state(name, weights)}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        try:
            encoder = timm.create_model(name, features_only=True, **options)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--compare {name}: timm cannot create this encoder: {error}") from error
    if not weights:
        open_branches(encoder)
    return encoder, pretrained


def timm_state(name: str, weights: str) -> Mapping[str, Tensor]:
    """Read the weights of a timm encoder from a file; a UserError names the first tensor that is missing in it."""
    import timm

    state = read_checkpoint(Path(weights)).state
    with torch.device("meta"):
        expected = timm.create_model(name, num_classes=0).state_dict()
    for tensor in expected:
        if tensor not in state:
            raise UserError(f"{weights}: tensor '{tensor}' is missing; expected the weights of timm's {name}")
    return state


def open_branches(encoder: nn.Module) -> None:
    """Set to 1 the norm weights and layer scales that timm initializes to 0 or almost 0.

    Otherwise the residual branches that they scale would hardly influence the output.
    """
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d) and module.weight is not None and not module.weight.any():
            nn.init.ones_(module.weight)
    for name, parameter in encoder.named_parameters():
        if name.endswith("gamma"):
            nn.init.ones_(parameter)
