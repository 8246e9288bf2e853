"""What the parts of a model share: tokens viewed as a map and back, checks of the input, copies, digests."""

import copy
import hashlib
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segformer.config import ModelCard
from segformer.errors import UserError

Module = TypeVar("Module", bound=nn.Module)
MIN_SIZE = 32  # pixels; a smaller side vanishes at the coarsest stride


def as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """View tokens as a map that is channels-last in memory, without a copy.  (B, H*W, C) -> (B, C, H, W)"""
    return tokens.view(tokens.shape[0], *size, tokens.shape[2]).permute(0, 3, 1, 2)


def as_tokens(features: Tensor) -> Tensor:
    """View a channels-last map as tokens, without a copy.  (B, C, H, W) -> (B, H*W, C)"""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def linear_of_gelu(hidden: Tensor, linear: nn.Module) -> Tensor:
    """linear(gelu(hidden)); on the way back the GELU is computed again from its input, which is kept anyway.

    A quarter of what a block of the encoder would keep for its gradient is kept no more.
    """
    active = F.gelu(hidden)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return linear(active)  # type: ignore[no-any-return]  # nn.Module is untyped
    place = active.data_ptr()

    def pack(tensor: Tensor) -> Tensor | tuple[Tensor, torch.Size]:
        return (hidden, tensor.shape) if tensor.data_ptr() == place else tensor

    def unpack(kept: Tensor | tuple[Tensor, torch.Size]) -> Tensor:
        return F.gelu(kept[0]).view(kept[1]) if isinstance(kept, tuple) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return linear(active)  # type: ignore[no-any-return]


def sharing_copy(module: Module) -> Module:
    """Return a copy that shares the parameters, but has a mode and settings of its own."""
    return copy.deepcopy(module, {id(parameter): parameter for parameter in module.parameters()})


def register_statistics(module: nn.Module, card: ModelCard) -> None:
    """Give a module the buffers ``mean`` and ``std`` of its input, (1, C_in, 1, 1); they are not saved."""
    for name, values in (("mean", card.preprocessing.mean), ("std", card.preprocessing.std)):
        module.register_buffer(name, torch.tensor(values, device="cpu").view(1, -1, 1, 1), persistent=False)


def check_images(images: Tensor, in_channels: int) -> None:
    """Raise a UserError where a model cannot take this batch."""
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise UserError(f"images must be (batch, {in_channels}, height, width), got {tuple(images.shape)}")
    if min(images.shape[2:]) < MIN_SIZE:
        raise UserError(
            f"images must be at least {MIN_SIZE} pixels high and wide, got {images.shape[2]} x {images.shape[3]}; "
            f"enlarge them first"
        )


def weights_digest(module: nn.Module) -> str:
    """Digest of all weights by their names."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
