"""Checks of what a user enters: a name among known ones, and the ranges of a config's fields."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from segformer.errors import UserError


@dataclass(frozen=True)
class OneOf:
    """Marks a text field as the name of a row: ``Annotated[str, OneOf("models.encoders.ENCODERS")]``.

    The command line lists the names that the table holds when ``--help`` is printed.
    """

    table: str
    """Module and name, below this package, of the table or of a function that returns the names."""
    lead: str = "One of"
    """Words before the names in a help text."""


@dataclass(frozen=True)
class Rule:
    """A condition that one field, or each of several, must meet."""

    fields: tuple[str, ...]
    holds: Callable[[Any], bool]
    expected: str
    """The condition in words, to follow "must be"."""


def optional(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a condition that None meets as well."""
    return lambda value: value is None or holds(value)


def check_fields(config: Any, rules: Iterable[Rule], section: str = "") -> None:
    """Raise a UserError that names the first field of a config that breaks a rule."""
    prefix = f"{section}." if section else ""
    for rule in rules:
        for name in rule.fields:
            value = getattr(config, name)
            if not rule.holds(value):
                raise UserError(f"{prefix}{name} must be {rule.expected}, got {value}")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise a UserError that names the closest choice if ``value`` is not among the choices."""
    known = list(choices)
    if value not in known:
        raise UserError(f"{name} must be one of {', '.join(known)}; got '{value}'{closest(value, known)}")


def closest(value: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the most similar known word, or "" if none is similar."""
    words = list(known)
    similar = difflib.get_close_matches(value, words, n=1) or [word for word in words if value and value in word]
    return f"; did you mean '{similar[0]}'?" if similar else ""
