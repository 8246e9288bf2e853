"""What every layout of a SegFormer checkpoint is: a table of names, and three operations that read or write by it.

A row pairs a module of ours with its name there.  ``{i}`` is the stage and ``{j}`` the block, from 0; ``{I}`` is the
stage from 1, ``{R}`` from the last one.  Several names on their side are concatenated into one tensor of ours, several
on ours are cut from one of theirs.  A 1x1 convolution there may be a linear layer here: ``as_convolution`` says so.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from segformer.config import ModelConfig
from segformer.errors import UserError
from segformer.models.build import build_model, model_config
from segformer.models.encoders.mit import PATCHES
from segformer.published import MIT_SIZES

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Row:
    """One module: its name here and there, or several names on one side."""

    ours: str | tuple[str, ...]
    theirs: str | tuple[str, ...]
    as_convolution: bool = False

    @property
    def our_names(self) -> tuple[str, ...]:
        """Return our side as a tuple."""
        return (self.ours,) if isinstance(self.ours, str) else self.ours

    @property
    def their_names(self) -> tuple[str, ...]:
        """Return their side as a tuple."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A checkpoint layout."""

    name: str
    """What it is called in messages."""
    rows: tuple[Row, ...]
    signature: tuple[str, ...]
    """Keys that only this layout has, all of them."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Patterns of keys that are left out, with the reason."""
    norm_eps: float = 1e-6
    embed_norm_eps: float = 1e-5
    align_corners: bool = False

    @property
    def has_decoder(self) -> bool:
        """Whether it holds more than an encoder."""
        return any(name.startswith("decoder.") for row in self.rows for name in row.our_names)

    def matches(self, state: State) -> bool:
        """Whether a checkpoint's keys are of this layout."""
        return all(key in state for key in self.signature)


@dataclass(frozen=True)
class Entry:
    """A row for one module and one of its tensors, with the numbers filled in."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    as_convolution: bool


def entries(layout: Layout, expected: State) -> Iterator[Entry]:
    """Names here and there of each tensor of a model, by the layout's table."""
    patterns = [(re.compile(_pattern(row.our_names[0])), row) for row in layout.rows]
    for name in expected:
        for pattern, row in patterns:
            if found := pattern.fullmatch(name):
                numbers = _numbers(found)
                ours = tuple(_named(template, numbers) for template in row.our_names)
                theirs = tuple(_named(template, numbers) for template in row.their_names)
                yield Entry(ours, theirs, row.as_convolution and name.endswith(".weight"))


def read(layout: Layout, state: State, expected: State) -> tuple[dict[str, Tensor], list[str]]:
    """Translate a checkpoint into our names; returns it with a line for everything that was left out.

    Raises a UserError that names the first tensor that is missing, of another shape, or unknown.
    """
    ours: dict[str, Tensor] = {}
    used: set[str] = set()
    for entry in entries(layout, expected):
        parts = [_take(layout, state, name) for name in entry.theirs]
        used.update(entry.theirs)
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        sizes = [expected[name].shape[0] if expected[name].ndim else 1 for name in entry.ours]
        pieces = [joined] if len(sizes) == 1 else _cut(joined, sizes, entry)
        for name, piece in zip(entry.ours, pieces, strict=True):
            ours[name] = _fit(piece, expected[name], entry.theirs[0])
    return ours, left_out(layout, [key for key in state if key not in used])


def write(layout: Layout, state: State) -> dict[str, Tensor]:
    """Translate our tensors into a layout's names and shapes."""
    theirs: dict[str, Tensor] = {}
    for entry in entries(layout, state):
        joined = torch.cat([state[name] for name in entry.ours]) if len(entry.ours) > 1 else state[entry.ours[0]]
        for name, piece in zip(entry.theirs, joined.chunk(len(entry.theirs)) if joined.ndim else [joined], strict=True):
            theirs[name] = (piece[..., None, None] if entry.as_convolution else piece).contiguous()
    return theirs


def left_out(layout: Layout, keys: Sequence[str]) -> list[str]:
    """Say why each key is left out; raises a UserError that names one without a reason."""
    reasons: dict[str, list[str]] = {}
    for key in keys:
        reason = next((why for pattern, why in layout.dropped.items() if re.fullmatch(pattern, key)), None)
        if reason is None:
            raise UserError(f"unknown tensor '{key}' in a checkpoint of {layout.name}")
        reasons.setdefault(reason, []).append(key)
    return [f"left out {', '.join(keys)}: {reason}" for reason, keys in reasons.items()]


def architecture(layout: Layout, state: State) -> tuple[ModelConfig, int]:
    """Read encoder, decoder width, channels and number of classes (0 without a decoder) off a checkpoint's shapes.

    Raises a UserError where the sizes are none of MiT-B0 ... B5.
    """
    stems = [_shape(layout, state, "encoder.stages.{i}.embed.project", {"i": i}) for i in range(4)]
    kernels = [(kernel, kernel) for kernel, _ in PATCHES]
    if [stem[2:] for stem in stems] != kernels:
        raise UserError(f"the patches' kernels must be {kernels}, got {[stem[2:] for stem in stems]}")
    channels = tuple(stem[0] for stem in stems)
    depths = tuple(_depth(layout, state, i) for i in range(4))
    encoder = next((n for n, size in MIT_SIZES.items() if (size.channels, size.depths) == (channels, depths)), None)
    if encoder is None:
        raise UserError(f"channels {channels} and depths {depths} are none of MiT-B0 ... B5")
    width, classes = MIT_SIZES[encoder].decoder_channels, 0
    if layout.has_decoder:
        width = _shape(layout, state, "decoder.projections.{i}", {"i": 0})[0]
        classes = _shape(layout, state, "decoder.classifier", {})[0]
    config = model_config(
        encoder,
        decoder_channels=width,
        in_channels=stems[0][1],
        norm_eps=layout.norm_eps,
        embed_norm_eps=layout.embed_norm_eps,
        align_corners=layout.align_corners,
    )
    return config, classes


def expected_state(config: ModelConfig, num_classes: int) -> dict[str, Tensor]:
    """Return our names and shapes for an architecture, without memory."""
    with torch.device("meta"):
        return build_model(config, num_classes=max(num_classes, 1)).state_dict()


def with_prefix(rows: Sequence[Row], prefix: str) -> tuple[Row, ...]:
    """Put a prefix before every name there."""

    def change(names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return prefix + names if isinstance(names, str) else tuple(prefix + name for name in names)

    return tuple(Row(row.ours, change(row.theirs), row.as_convolution) for row in rows)


def _pattern(template: str) -> str:
    """Our template as a regular expression whose groups are the numbers and the tensor's own name."""
    named: Callable[[re.Match[str]], str] = lambda found: f"(?P<{found[1]}>\\d+)"  # noqa: E731
    return re.sub(r"\\\{(\w)\\\}", named, re.escape(template)) + r"\.(?P<s>\w+)"


def _numbers(found: re.Match[str]) -> dict[str, str | int]:
    numbers: dict[str, str | int] = dict(found.groupdict())
    if "i" in numbers:
        numbers |= {"I": int(numbers["i"]) + 1, "R": 3 - int(numbers["i"])}
    return numbers


def _named(template: str, numbers: Mapping[str, str | int]) -> str:
    return (template if "{s}" in template else template + ".{s}").format(**numbers)


def _row(layout: Layout, ours: str) -> Row:
    return next(row for row in layout.rows if ours in row.our_names)


def _shape(layout: Layout, state: State, ours: str, numbers: Mapping[str, int]) -> tuple[int, ...]:
    """Shape of the weight of a module that is renamed only."""
    row = _row(layout, ours)
    filled: dict[str, str | int] = {
        "s": "weight",
        "I": numbers.get("i", 0) + 1,
        "R": 3 - numbers.get("i", 0),
        **numbers,
    }
    return tuple(_take(layout, state, _named(row.their_names[0], filled)).shape)


def _depth(layout: Layout, state: State, stage: int) -> int:
    row = _row(layout, "encoder.stages.{i}.blocks.{j}.norm1")
    depth = 0
    while _named(row.their_names[0], {"i": stage, "I": stage + 1, "j": depth, "s": "weight"}) in state:
        depth += 1
    return depth


def _take(layout: Layout, state: State, name: str) -> Tensor:
    if name not in state:
        raise UserError(f"tensor '{name}' is missing from a checkpoint of {layout.name}")
    return state[name]


def _cut(joined: Tensor, sizes: Sequence[int], entry: Entry) -> Sequence[Tensor]:
    if not joined.ndim or joined.shape[0] != sum(sizes):
        raise UserError(f"tensor '{entry.theirs[0]}' must have {sum(sizes)} rows, got {tuple(joined.shape)}")
    return torch.split(joined, list(sizes))


def _fit(tensor: Tensor, expected: Tensor, name: str) -> Tensor:
    """Drop or add the two sides of a 1x1 convolution; raises a UserError where the shape is another one still."""
    shape = tuple(tensor.shape)
    if shape in ((*expected.shape, 1, 1), tuple(expected.shape)) or (*shape, 1, 1) == tuple(expected.shape):
        return tensor.reshape(expected.shape)
    raise UserError(f"tensor '{name}' must be {tuple(expected.shape)}, got {shape}")
