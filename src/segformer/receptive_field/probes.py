"""Networks whose outputs are looked at: this package's models, and encoders of timm to compare them with."""

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segformer.checkpoints.model_folder import load
from segformer.checkpoints.weight_files import read_checkpoint
from segformer.config import Size, closest
from segformer.errors import UserError
from segformer.models.segmenter import Segmenter

DECODER = "decoder"
NUM_STAGES = 4
SEED = 0  # of encoders without weights: the same ones every time


@dataclass(frozen=True, eq=False)
class Probe:
    """A network in evaluation mode, what it makes of raw pixels, and the maps that it is asked for."""

    label: str
    network: nn.Module
    digest: str
    """Of its weights."""
    mean: Tensor
    std: Tensor

    def normalize(self, pixels: Tensor) -> Tensor:
        """Raw pixel values (C, H, W) -> the network's input (1, C, H, W), on its device."""
        return (pixels.to(self.mean) - self.mean)[None] / self.std

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the maps "stage 1" ..., and "decoder" where there is one."""
        return self.network(images)  # type: ignore[no-any-return]  # nn.Module is untyped


class SegmenterOutputs(nn.Module):
    """The encoder's maps, and what the decoder's classifier reads.

    The classifier is left out: it is a 1 x 1 convolution, which looks no further than its input.  What the decoder
    takes from coarse maps lies up to half of their stride above and left of the centre: their convolutions are centred
    on a cell's corner, and upsampling (align_corners=False) takes that for the cell's middle.
    """

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the encoder once for all."""
        maps = self.model.encoder(images)
        return {**named(maps), DECODER: self.model.decoder.features(maps)}


class TimmOutputs(nn.Module):
    """The last four maps of a timm encoder that was made with ``features_only``."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Some encoders of timm give their channels last: they are put first."""
        info, height = self.encoder.feature_info, images.shape[2]
        maps = [
            features if is_channels_first(features, channels, math.ceil(height / stride)) else features.movedim(3, 1)
            for features, channels, stride in zip(self.encoder(images), info.channels(), info.reduction(), strict=True)
        ]
        return named(maps[-NUM_STAGES:])


def is_channels_first(features: Tensor, channels: int, height: int) -> bool:
    """Whether a map is (B, C, h, w) rather than (B, h, w, C); ``height`` decides where both would fit."""
    _, first, second, last = features.shape
    return first == channels and (last != channels or second == height)


def named(maps: Sequence[Tensor]) -> dict[str, Tensor]:
    """Name an encoder's maps, finest first."""
    return {f"stage {number}": features for number, features in enumerate(maps, start=1)}


def probe_all(model: Segmenter, label: str, compare: Sequence[str], size: Size) -> list[Probe]:
    """Look at a model and at what it is compared with, all on its device; raises a UserError for what can not be."""
    channels = model.card.model.in_channels
    if compare and channels != 3:
        raise UserError(f"--compare needs a model of 3 channels, this one has {channels}; leave it out")
    probes = [probe_model(model, label), *(probe_baseline(spec, size, model.device) for spec in compare)]
    for number, probe in enumerate(probes):
        if probe.label in [other.label for other in probes[:number]]:
            raise UserError(f"--compare has {probe.label} twice; name it once")
    return probes


def probe_model(model: Segmenter, label: str = "model") -> Probe:
    """Look at a copy of one of this package's models; the model itself stays as it is."""
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    return Probe(label, SegmenterOutputs(frozen), digest_of(frozen), frozen.mean[0], frozen.std[0])


def probe_baseline(spec: str, size: Size, device: torch.device) -> Probe:
    """Look at what ``--compare`` names: a path to a model of any layout, or an encoder of timm.

    ``NAME=FILE`` gives timm's encoder NAME the weights of a file; without it the weights are random, which the label
    says: nothing is downloaded.  Raises a UserError that names the closest known encoder.
    """
    name, _, weights = spec.partition("=")
    if not weights and Path(spec).exists():
        other = load(spec, device)
        if other.card.model.in_channels != 3:
            raise UserError(f"--compare: {spec} takes {other.card.model.in_channels} channels, expected 3")
        return probe_model(other, spec)
    encoder, notes = timm_encoder(name, weights, size)
    network = TimmOutputs(encoder).to(device).eval().requires_grad_(False)
    mean, std = (255 * torch.tensor(values, device=device).view(-1, 1, 1) for values in (notes.mean, notes.std))
    return Probe(spec if weights else f"{name} (random weights)", network, digest_of(network), mean, std)


def timm_encoder(name: str, weights: str, size: Size) -> tuple[Any, Any]:
    """Make an encoder of timm, and return it with timm's notes on it: the mean and std of its pixels (0 to 1), ..."""
    import timm

    if not timm.is_model(name):
        raise UserError(f"--compare: timm has no encoder '{name}'{closest(name, timm.list_models())}")
    notes: Any = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {"img_size": size} if notes.fixed_input_size else {}
    if weights:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state_for(name, weights)}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        try:
            encoder = timm.create_model(name, features_only=True, **options)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--compare {name}: timm can not make this encoder: {error}") from error
    if not weights:
        open_branches(encoder)
    return encoder, notes


def state_for(name: str, weights: str) -> dict[str, Tensor]:
    """Read a file of weights; raises a UserError that names the first tensor of the encoder that is missing."""
    import timm

    state = read_checkpoint(Path(weights)).state
    with torch.device("meta"):
        expected = timm.create_model(name, num_classes=0).state_dict()
    for tensor in expected:
        if tensor not in state:
            raise UserError(f"{weights}: tensor '{tensor}' is missing; expected the weights of timm's {name}")
    return state


def open_branches(encoder: nn.Module) -> None:
    """Set norms and layer scales that timm initialises to 0, or nearly, to 1: they would hide residual branches."""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d) and module.weight is not None and not module.weight.any():
            nn.init.ones_(module.weight)
    for name, parameter in encoder.named_parameters():
        if name.endswith("gamma"):
            nn.init.ones_(parameter)


def digest_of(network: nn.Module) -> str:
    """Return what tells these weights from others."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
