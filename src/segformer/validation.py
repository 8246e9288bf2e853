"""Checks of user input: whether a name is among the known names, and whether a value is in its range."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from segformer.errors import UserError


@dataclass(frozen=True)
class OneOf:
    """Annotation of a text field that names an entry of a table: ``Annotated[str, OneOf("models.encoders.ENCODERS")]``.

    The command line looks up the table and lists its names in ``--help``.
    """

    table: str
    """Name of the table, or of a function that returns the allowed names, with its module in this package before it."""
    lead: str = "One of"
    """Words before the list of names in the help text."""


@dataclass(frozen=True)
class Rule:
    """A condition that each of the named fields of a config must meet."""

    fields: tuple[str, ...]
    holds: Callable[[Any], bool]
    expected: str
    """The condition in words, as the error message prints it after "must be"."""


def optional(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a condition that is met by None and by every value that meets ``holds``."""
    return lambda value: value is None or holds(value)


def check_fields(config: Any, rules: Iterable[Rule], section: str = "") -> None:
    """Raise a UserError for the first field of a config that breaks a rule.

    ``section``, such as "train", is written before the name of the field in the message.
    """
    prefix = f"{section}." if section else ""
    for rule in rules:
        for name in rule.fields:
            value = getattr(config, name)
            if not rule.holds(value):
                raise UserError(f"{prefix}{name} must be {rule.expected}, got {value}")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise a UserError that lists the choices and suggests the most similar one, unless ``value`` is a choice."""
    known = list(choices)
    if value not in known:
        raise UserError(f"{name} must be one of {', '.join(known)}; got '{value}'{closest(value, known)}")


def closest(value: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the most similar known word, or "" if none is similar."""
    words = list(known)
    similar = difflib.get_close_matches(value, words, n=1) or [word for word in words if value and value in word]
    return f"; did you mean '{similar[0]}'?" if similar else ""
