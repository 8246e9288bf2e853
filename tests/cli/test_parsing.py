from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from tyro.conf import arg

from segformer.cli.parsing import call, parse
from segformer.errors import UserError
from segformer.ops.losses import LOSSES
from segformer.validation import OneOf


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Options."""

    loss: Annotated[str, OneOf("ops.losses.LOSSES")] = "focal"
    """Loss function."""
    steps: int = 3
    """Number of steps."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps must be at least 1, got {self.steps}")


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Do something with a sentence that is so long that no terminal of eighty columns could show it on one line."""

    inner: Inner


CALLS: list[tuple[str, str, int]] = []


def command(
    name: str,
    /,
    *,
    loss: Annotated[str, arg(metavar="LOSS", help="Loss to use."), OneOf("ops.losses.LOSSES", "Known")],
    mode: Literal["slow", "fast"] = "fast",
    number: int = 1,
) -> None:
    """Record a call."""
    CALLS.append((name, loss, number))


def help_of(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        call(command, ["--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_a_command_is_called_with_its_arguments() -> None:
    CALLS.clear()
    call(command, ["x", "--loss", "anything", "--number", "3"])
    assert CALLS == [("x", "anything", 3)]


def test_help_lists_the_names_that_a_table_holds_now(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"Loss to use. Known: {', '.join(LOSSES)}. (required)" in " ".join(help_of(capsys).split())
    monkeypatch.setitem(LOSSES, "planted", LOSSES["focal"])
    assert "planted" in help_of(capsys)
    with pytest.raises(SystemExit):
        parse(Outer, ["--help"], "outer")
    text = " ".join(capsys.readouterr().out.split())
    assert f"Loss function. One of: {', '.join(LOSSES)}. (default: focal)" in text
    assert list(LOSSES)[-1] == "planted"
    assert "--inner.loss NAME" in text


def test_help_fits_the_terminal_and_has_no_frame(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parse(Outer, ["--help"], "outer")
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.isascii()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing from segformer command: STR --loss LOSS; see segformer command --help"),
        (["x", "--loss", "y", "--los", "y"], "did you mean '--loss'?"),
        (["x", "--loss", "y", "--number", "z"], "--number: invalid literal for int() with base 10: 'z'; see"),
        (["x", "--loss", "y", "--mode", "medium"], "invalid choice 'medium' for argument '--mode'"),
    ],
)
def test_wrong_arguments_are_an_error_of_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        call(command, arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_config_that_refuses_a_value_says_so_itself() -> None:
    with pytest.raises(UserError, match=r"^steps must be at least 1, got 0; see segformer outer --help$"):
        parse(Outer, ["--inner.steps", "0"], "outer")
    assert parse(Outer, ["--inner.steps", "2"], "outer").inner.steps == 2


def test_an_error_of_the_command_itself_is_left_alone() -> None:
    def broken(name: str, /) -> None:
        """Break."""
        raise ValueError("planted")

    with pytest.raises(ValueError, match=r"^planted$"):
        call(broken, ["x"])
