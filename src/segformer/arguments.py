"""Arguments that commands share, and what they mean."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from segformer.config import DataConfig

if TYPE_CHECKING:
    from segformer.data.dataset import DataSource
    from segformer.models.segmenter import Segmenter

PROGRAM = "segformer"
ANY_MODEL = "Model folder such as runs/<recipe>/best, another project's checkpoint, or a hub id."
ModelArgument = Annotated[str, arg(metavar="MODEL", help=ANY_MODEL)]
DataArgument = Annotated[
    str, arg(metavar="NAME=ROOT|FOLDER", help="A folder whose layout is recognised, NAME=FOLDER, or toytown.")
]
DeviceArgument = Annotated[str, arg(metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")]


def choose_device(name: str) -> str:
    """Return the device that a name means; raises a ValueError where this machine has none such."""
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if name.split(":")[0] not in available:
        raise ValueError(f"--device must be auto, cpu, cuda, cuda:N or mps, got '{name}'")
    if not available[name.split(":")[0]]:
        present = ", ".join(kind for kind, there in available.items() if there)
        raise ValueError(f"--device {name} is not available on this machine, which has {present}; leave --device out")
    return name


def set_threads(threads: int) -> None:
    """Limit the CPU threads; 0 leaves torch's choice."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def load_data(data: str, masks: str = "", relabel: Sequence[tuple[str, str]] = ()) -> "DataSource":
    """Open what --data names, and say on standard error how it was read."""
    from segformer.data.catalog import open_data, with_data

    source = open_data(replace(with_data(DataConfig(), data), masks=masks, relabel=tuple(relabel)))
    for note in source.notes:
        print_note(note)
    return source


def print_note(note: str) -> None:
    """Tell the user something, on standard error."""
    print(f"note: {note}", file=sys.stderr)


def load_model(folder: str, device: str, threads: int) -> "Segmenter":
    """Load a model on the chosen device."""
    from segformer.checkpoint import load

    set_threads(threads)
    return load(folder, choose_device(device))
