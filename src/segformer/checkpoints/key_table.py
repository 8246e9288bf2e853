"""Key tables: they pair the tensor names of another project ("theirs") with the names of this package ("ours").

Each row pairs the names of one module.  In a name, ``{i}`` is the number of the stage and ``{j}`` the number of the
block, both starting at 0.  ``{I}`` is the number of the stage starting at 1, and ``{R}`` is the number of the stage
counted from the last one, which has the number 0.  If a row has several names in the other project, the tensors are
concatenated to one tensor of ours.  If a row has several names in this package, one tensor of the other project is
split.  ``as_convolution`` marks our linear layers that are 1x1 convolutions in the other project.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from segformer.errors import UserError

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Row:
    """The names of one module, ours and theirs; one of these fields may be a tuple of several names."""

    ours: str | tuple[str, ...]
    theirs: str | tuple[str, ...]
    as_convolution: bool = False

    @property
    def our_names(self) -> tuple[str, ...]:
        """Our names, always as a tuple."""
        return (self.ours,) if isinstance(self.ours, str) else self.ours

    @property
    def their_names(self) -> tuple[str, ...]:
        """Their names, always as a tuple."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


@dataclass(frozen=True, kw_only=True)
class KeyTable:
    """The tensor names of one kind of checkpoint, and constants that the other project hard-codes."""

    name: str
    """Name of this kind of checkpoint in messages and in the ``provenance`` of a model card."""
    rows: tuple[Row, ...]
    signature: tuple[str, ...]
    """Tensor names by which this kind is recognized: all must be present; the longest matching signature wins."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Regular expressions of tensor names that are ignored when reading, each with the reason."""
    norm_eps: float = 1e-6
    embed_norm_eps: float = 1e-5
    align_corners: bool = False

    @property
    def has_decoder(self) -> bool:
        """Whether the table contains a decoder, not only an encoder."""
        return any(name.startswith("decoder.") for row in self.rows for name in row.our_names)

    def matches(self, state: State) -> bool:
        """Whether a checkpoint contains all tensor names of the signature."""
        return all(key in state for key in self.signature)


@dataclass(frozen=True)
class Entry:
    """A pair of complete tensor names, ours and theirs: a row with the stage and block numbers filled in."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    as_convolution: bool


def entries(table: KeyTable, expected: State) -> Iterator[Entry]:
    """Yield the names of each tensor of our model ``expected``; tensors without a row in the table are skipped."""
    patterns = [(re.compile(_pattern(row.our_names[0])), row) for row in table.rows]
    for name in expected:
        for pattern, row in patterns:
            if found := pattern.fullmatch(name):
                numbers = found.groupdict()
                ours = tuple(fill(template, numbers) for template in row.our_names)
                theirs = tuple(fill(template, numbers) for template in row.their_names)
                yield Entry(ours, theirs, row.as_convolution and name.endswith(".weight"))


def read(table: KeyTable, state: State, expected: State) -> tuple[dict[str, Tensor], list[str]]:
    """Convert a checkpoint to our names, and return its tensors, with notes on those that were left out.

    Raises a UserError that names the first tensor that is missing or unknown, or whose shape differs from ``expected``.
    """
    ours: dict[str, Tensor] = {}
    used: set[str] = set()
    for entry in entries(table, expected):
        parts = [take(table, state, name) for name in entry.theirs]
        used.update(entry.theirs)
        joined = parts[0] if len(parts) == 1 else _join(parts, entry)
        sizes = [expected[name].shape[0] if expected[name].ndim else 1 for name in entry.ours]
        pieces = [joined] if len(sizes) == 1 else _cut(joined, sizes, entry)
        for name, piece in zip(entry.ours, pieces, strict=True):
            ours[name] = _fit(piece, expected[name], entry.theirs[0])
    return ours, left_out(table, [key for key in state if key not in used])


def write(table: KeyTable, state: State) -> dict[str, Tensor]:
    """Return our tensors with the other project's names and shapes; raises a UserError if a tensor has no row."""
    found = list(entries(table, state))
    named = {name for entry in found for name in entry.ours}
    for name in state:
        if name not in named:
            raise UserError(f"a checkpoint of {table.name} has no place for the tensor '{name}' of this model")
    theirs: dict[str, Tensor] = {}
    for entry in found:
        joined = torch.cat([state[name] for name in entry.ours]) if len(entry.ours) > 1 else state[entry.ours[0]]
        for name, piece in zip(entry.theirs, joined.chunk(len(entry.theirs)) if joined.ndim else [joined], strict=True):
            theirs[name] = (piece[..., None, None] if entry.as_convolution else piece).contiguous()
    return theirs


def left_out(table: KeyTable, keys: Sequence[str]) -> list[str]:
    """Return notes that say why the tensors ``keys`` are left out; raises a UserError if the table names no reason."""
    reasons: dict[str, list[str]] = {}
    for key in keys:
        reason = next((why for pattern, why in table.dropped.items() if re.fullmatch(pattern, key)), None)
        if reason is None:
            raise UserError(f"unknown tensor '{key}' in a checkpoint of {table.name}")
        reasons.setdefault(reason, []).append(key)
    return [f"left out {', '.join(keys)}: {reason}" for reason, keys in reasons.items()]


def take(table: KeyTable, state: State, name: str) -> Tensor:
    """Return a tensor of a checkpoint; raises a UserError with its name if it is missing."""
    if name not in state:
        raise UserError(f"tensor '{name}' is missing from a checkpoint of {table.name}")
    return state[name]


def with_prefix(rows: Sequence[Row], prefix: str) -> tuple[Row, ...]:
    """Return the rows with a prefix before each name of the other project."""
    return tuple(Row(row.ours, tuple(prefix + name for name in row.their_names), row.as_convolution) for row in rows)


def fill(template: str, numbers: Mapping[str, str | int]) -> str:
    """Fill the placeholders of a template: stage (i, I, R), block (j) and the last part of the tensor name (s)."""
    values: dict[str, str | int] = dict(numbers)
    if "i" in values:
        values |= {"I": int(values["i"]) + 1, "R": 3 - int(values["i"])}
    return (template if "{s}" in template else template + ".{s}").format(**values)


def _pattern(template: str) -> str:
    """Convert one of our templates to a regular expression with groups for numbers and the last part of the name."""
    group: Callable[[re.Match[str]], str] = lambda found: f"(?P<{found[1]}>\\d+)"  # noqa: E731
    return re.sub(r"\\\{(\w)\\\}", group, re.escape(template)) + r"\.(?P<s>\w+)"


def _join(parts: Sequence[Tensor], entry: Entry) -> Tensor:
    shapes = {tuple(part.shape) for part in parts}
    if len(shapes) != 1 or () in shapes:
        raise UserError(f"tensors {', '.join(entry.theirs)} must have the same shape, got {sorted(shapes)}")
    return torch.cat(list(parts))


def _cut(joined: Tensor, sizes: Sequence[int], entry: Entry) -> Sequence[Tensor]:
    if not joined.ndim or joined.shape[0] != sum(sizes):
        raise UserError(f"tensor '{entry.theirs[0]}' must have {sum(sizes)} rows, got {tuple(joined.shape)}")
    return torch.split(joined, list(sizes))


def _fit(tensor: Tensor, expected: Tensor, name: str) -> Tensor:
    """Add or remove the two dimensions of a 1x1 kernel as expected; raises a UserError for any other difference."""
    shape = tuple(tensor.shape)
    if shape in ((*expected.shape, 1, 1), tuple(expected.shape)) or (*shape, 1, 1) == tuple(expected.shape):
        return tensor.reshape(expected.shape)
    raise UserError(f"tensor '{name}' must be {tuple(expected.shape)}, got {shape}")
