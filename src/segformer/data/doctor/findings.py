"""Findings: what is wrong with a data set and how to fix it, if possible with a shell command."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segformer.config import Size

Severity = Literal["error", "warning"]
Kind = Literal[
    "layout",
    "unreadable_image",
    "unreadable_mask",
    "image_without_mask",
    "mask_without_image",
    "size_mismatch",
    "exif_rotation",
    "color_mask",
    "jpeg_mask",
    "binary_mask",
    "off_by_one",
    "out_of_range",
    "ignored_mask",
    "absent_class",
    "in_two_splits",
    "duplicate",
    "near_duplicate",
    "mixed_channels",
]

MAX_NAMED = 6  # files that a command may name; the finding itself names all files


@dataclass(frozen=True)
class Finding:
    """One kind of fault, with all files that have it.

    An error would stop the training or make it learn from wrong labels.  A warning has to be judged by the owner of the
    data.
    """

    kind: Kind
    severity: Severity
    files: tuple[str, ...]
    problem: str
    """What is wrong, in one sentence."""
    fix: str
    """How to fix it."""
    command: str = ""
    """Shell command that fixes it; empty if there is none."""


def count(things: Sequence[Any], noun: str) -> str:
    """Write the number of things and their noun in the singular or plural.

    >>> count([1], "mask"), count([1, 2], "class")
    ('1 mask', '2 classes')
    """
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{len(things)} {noun if len(things) == 1 else plural}"


def size_text(size: Size | None) -> str:
    """Write (height, width) as text; "-" if the size is unknown.

    >>> size_text((480, 640))
    '480 x 640'
    """
    return "-" if size is None else f"{size[0]} x {size[1]}"


def removal(files: Sequence[str]) -> str:
    """Return the shell command that deletes files; empty if there are no files, or too many to name."""
    return f"rm {shlex.join(files)}" if 0 < len(files) <= 2 * MAX_NAMED else ""


def rewriting(expression: str, files: Sequence[str]) -> str:
    """Return the shell command that replaces each mask by the value of a NumPy expression in ``a``, the mask's array.

    If there are too many masks to name, the command rewrites all PNGs in their folders.
    """
    folders = dict.fromkeys(name.rpartition("/")[0] for name in files)
    patterns = " ".join(f"{shlex.quote(name)}/*.png" for name in folders)
    arguments = shlex.join(files) if len(files) <= MAX_NAMED else patterns
    code = (
        "import sys, numpy as np; from PIL import Image; "
        f"[Image.fromarray((lambda a: {expression})(np.array(Image.open(f)))).save(f) for f in sys.argv[1:]]"
    )
    return f'python -c "{code}" {arguments}'
