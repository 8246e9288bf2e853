import io
import sys

import pytest

from segformer.cli.terminal import progress_of


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def __init__(self, terminal: bool) -> None:
            super().__init__()
            self.terminal = terminal

        def isatty(self) -> bool:
            return self.terminal

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for terminal in (True, False):
        errors = Terminal(terminal)
        monkeypatch.setattr(sys, "stderr", errors)
        with progress_of("evaluate") as move:
            move(1, 4)
            move(4, 4)
        assert ("evaluate" in errors.getvalue()) == terminal
        assert ("4/4" in errors.getvalue()) == terminal


def test_standard_output_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_of("evaluate") as move:
        move(1, 2)
    assert capsys.readouterr().out == ""
