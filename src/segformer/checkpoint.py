"""Model folders: config.json (a ModelCard) beside model.safetensors."""

import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from segformer.config import ModelCard, from_json, to_json
from segformer.files import read_json, write_bytes, write_folder, write_json
from segformer.models.segmenter import Segmenter, build_from_card

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT_VERSION = 1


def save(model: Segmenter, folder: str | Path) -> None:
    """Write a model folder; an existing one is replaced as a whole, or not at all."""
    write_folder(Path(folder), lambda partial: write_model(model, partial))


def write_model(model: Segmenter, folder: Path) -> None:
    """Write the two files of a model folder into an existing folder."""
    write_json(folder / CONFIG, {"format_version": FORMAT_VERSION} | to_json(model.card))
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(folder / WEIGHTS, serialize(state, metadata={"format": "pt"}))


def load(source: str | Path, device: str | torch.device = "cpu") -> Segmenter:
    """Load a model folder; the model comes back in evaluation mode.

    Raises FileNotFoundError where there is none, ValueError where its files do not hold what they should.
    """
    folder = Path(source)
    if not folder.exists():
        raise FileNotFoundError(f"no model at '{source}'; give a model folder such as runs/<recipe>/best")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"'{source}' is no model folder: it has no {name}; give a folder such as runs/<recipe>/best"
            )
    card = read_card(folder / CONFIG)
    try:
        with torch.device("meta"):
            model = build_from_card(card)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    load_weights(model, folder, assign=True)
    return model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


def load_weights(model: Segmenter, folder: Path, *, assign: bool = False) -> None:
    """Load the weights of a model folder; ``assign`` puts them in the place of the model's tensors.

    Raises a ValueError where they are damaged or not this model's.
    """
    state, expected = read_state(folder / WEIGHTS), model.state_dict()
    check_state(state, expected, folder / WEIGHTS)
    # A copy: the file's tensors lie anywhere in memory, and kernels on aligned ones are faster.
    aligned = {name: tensor.to(expected[name].dtype, copy=True) for name, tensor in state.items()}
    model.load_state_dict(aligned, assign=assign)


def read_card(path: Path) -> ModelCard:
    """Read a config.json; raises a ValueError that names the file and the field at fault."""
    values = read_json(path)
    if not isinstance(values, dict) or values.pop("format_version", None) != FORMAT_VERSION:
        raise ValueError(
            f"{path}: expected a segformer model's config (format_version {FORMAT_VERSION}), got other JSON"
        )
    try:
        return from_json(ModelCard, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; raises a ValueError that names it where it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, struct.error) as error:
        raise ValueError(f"{path}: damaged or no safetensors file ({error}); copy or train it again") from error


def check_state(state: dict[str, Tensor], expected: dict[str, Any], path: Path) -> None:
    """Raise a ValueError that names the first tensor that is missing, unknown or of another shape."""
    for name, tensor in expected.items():
        if name not in state:
            raise ValueError(f"{path}: tensor '{name}' is missing; config.json and weights do not belong together")
        if state[name].shape != tensor.shape:
            raise ValueError(
                f"{path}: tensor '{name}' must be {tuple(tensor.shape)} according to config.json, "
                f"got {tuple(state[name].shape)}"
            )
    for name in state:
        if name not in expected:
            raise ValueError(f"{path}: unknown tensor '{name}'; config.json and weights do not belong together")
