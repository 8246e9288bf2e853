"""``segformer info``: describe a model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from segformer.cli.arguments import ANY_MODEL, call

if TYPE_CHECKING:
    from segformer.checkpoints.weights import Weights


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(info, arguments)


def info(model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)], /) -> None:
    """Describe a model: its size, cost, architecture, preprocessing, test protocol, classes and provenance."""
    from segformer.checkpoints.model_folder import read_weights
    from segformer.cli.table import print_table

    print_table((), info_rows(read_weights(model)), title=model)


def info_rows(weights: "Weights") -> list[tuple[str, str]]:
    """Return rows (heading, text) that describe a model; for an encoder alone, only architecture and notes."""
    from segformer.json_config import to_json
    from segformer.paper.complexity import complexity_lines

    card = weights.card
    if card is None:
        rows = [("model", f"an encoder without decoder: {in_words(to_json(weights.config))}")]
    else:
        rows = [
            *complexity_lines(card.model, len(card.classes), (512, 512)).items(),
            ("model", in_words(to_json(card.model))),
            ("preprocessing", in_words(to_json(card.preprocessing))),
            ("eval", in_words(to_json(card.eval))),
            ("classes", f"{len(card.classes)}: {', '.join(card.classes)}"),
            ("provenance", in_words(card.provenance) or "unknown"),
            ("license", card.license),
        ]
    return rows + [("note", note) for note in weights.notes]


def in_words(values: dict[str, Any]) -> str:
    """Return a JSON object as one line of text.

    >>> in_words({"step": 9, "val": {"mIoU": 0.51234}, "scales": (0.5, 1.0), "flip": None})
    'step 9, val (mIoU 0.5123), scales 0.5 1, flip none'
    """
    return ", ".join(f"{key} {_value(value)}" for key, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"({in_words(value)})"
    if isinstance(value, list | tuple):
        return " ".join(map(_value, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.7g}" if value.is_integer() or abs(value) >= 10 else f"{value:.4g}"
    return "none" if value is None else str(value)
