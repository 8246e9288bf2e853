from dataclasses import dataclass

import pytest

from segformer.errors import UserError
from segformer.validation import Rule, check_choice, check_fields, closest, optional


@dataclass
class Numbers:
    first: float = 1
    second: float | None = None


RULES = (
    Rule(("first", "second"), optional(lambda x: x > 0), "positive or None"),
    Rule(("first",), lambda x: x < 9, "below 9"),
)


def test_rules_hold_or_name_the_field() -> None:
    check_fields(Numbers(), RULES)
    check_fields(Numbers(second=2), RULES)
    with pytest.raises(UserError, match=r"^second must be positive or None, got -1$"):
        check_fields(Numbers(second=-1), RULES)
    with pytest.raises(UserError, match=r"^train\.first must be below 9, got 9$"):
        check_fields(Numbers(first=9), RULES, "train")


def test_not_a_number_breaks_a_rule() -> None:
    with pytest.raises(UserError, match="first must be positive"):
        check_fields(Numbers(first=float("nan")), RULES)


def test_the_closest_word() -> None:
    assert closest("overlays", ["mask", "overlay"]) == "; did you mean 'overlay'?"
    assert closest("b3", ["mit_b0", "mit_b3"]) == "; did you mean 'mit_b3'?"
    assert closest("xyz", ["mask"]) == ""


def test_a_choice() -> None:
    check_choice("x", "mask", ["mask"])
    with pytest.raises(UserError, match=r"^x must be one of a, b; got 'c'$"):
        check_choice("x", "c", ["a", "b"])
