"""Read checkpoint files of any kind without running code that they may contain."""

import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from segformer.errors import UserError
from segformer.files import read_json

SAFETENSORS = (".safetensors",)
PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".tar")
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
SHARDS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
NESTED = ("state_dict", "model_state_dict", "model", "module")
PREFIXES = ("module.", "model.")


# Exceptions that torch.load raises for a damaged file or a file of another kind.
DAMAGE = (
    RuntimeError, EOFError, OSError, LookupError, ValueError, AttributeError, TypeError, AssertionError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file or folder: tensors under their original names, and other information."""

    path: Path
    state: dict[str, Tensor]
    meta: Mapping[str, Any]
    """Value of the entry ``meta`` in the checkpoint file; empty if there is none."""
    config: Mapping[str, Any]
    """Contents of config.json in the folder; empty if there is no such file."""
    preprocessor: Mapping[str, Any]
    """Contents of preprocessor_config.json in the folder; empty if there is no such file."""


def read_checkpoint(source: Path) -> Checkpoint:
    """Read a checkpoint from a file, or from a folder with one checkpoint, which may be split into shards.

    Raises a UserError that names the file if it is damaged, is not a checkpoint or contains code.
    """
    folder = source if source.is_dir() else source.parent
    loaded = read_folder(source) if source.is_dir() else read_file(source)
    state, meta = unwrap(loaded, source)
    described = {
        name: read_json(folder / f"{name}.json") if source.is_dir() and (folder / f"{name}.json").is_file() else {}
        for name in ("config", "preprocessor_config")
    }
    return Checkpoint(source, state, meta, described["config"], described["preprocessor_config"])


def read_folder(folder: Path) -> Any:
    """Read the checkpoint in a folder; if it is split into shards, all of them are read."""
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return read_file(folder / name)
    for name in SHARDS:
        if (folder / name).is_file():
            names = _shards(folder / name)
            return {key: tensor for shard in names for key, tensor in read_file(folder / Path(shard).name).items()}
    single = [path for path in sorted(folder.iterdir()) if path.suffix in SAFETENSORS + PICKLES]
    if len(single) == 1:
        return read_file(single[0])
    raise UserError(f"{folder}: expected {FOLDER_FILES[0]} or a single weight file, found {len(single)} weight files")


def read_file(path: Path) -> Any:
    """Read one weight file, either safetensors or a pickle from ``torch.save``; code in a pickle is never run."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix in SAFETENSORS:
        try:
            return load_file(path)
        except (SafetensorError, struct.error) as error:
            raise UserError(f"{path}: damaged or not a safetensors file ({error}); download it again") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0] if "Unsupported" not in str(error) else "it contains code"
        raise UserError(
            f"{path}: refused to load: {_short(reason)}; convert it to safetensors with the project that wrote it"
        ) from error
    except DAMAGE as error:
        raise UserError(f"{path}: damaged or not a checkpoint ({_short(str(error))}); download it again") from error


def unwrap(loaded: Any, path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return the tensors and ``meta`` of a loaded file; a prefix that all names have, such as "module.", is removed."""
    meta = loaded.get("meta", {}) if isinstance(loaded, Mapping) else {}
    state = loaded
    while isinstance(state, Mapping):
        inner = next((name for name in NESTED if isinstance(state.get(name), Mapping)), None)
        if inner is None:
            break
        state = state[inner]
    if not isinstance(state, Mapping):
        raise UserError(f"{path}: expected named tensors, got {type(loaded).__name__}")
    tensors = {str(name): tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise UserError(f"{path}: holds no tensors")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors, meta if isinstance(meta, Mapping) else {}


def _shards(path: Path) -> list[str]:
    """Return the names of all shard files that an index file lists."""
    values = read_json(path)
    names = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f'{path}: expected a "weight_map" with the file name of each tensor, got something else')
    return sorted(set(names.values()))


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _short(message: str) -> str:
    return " ".join(message.split())[:160] or "empty"
