"""Parse command lines with tyro, print errors in one line, and list the allowed names in the help."""

import contextlib
import functools
import inspect
import io
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass, replace
from importlib import import_module
from typing import Annotated, Any, TypeVar, cast, get_args, get_type_hints

import tyro
from tyro.conf import arg
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from segformer.cli.main import PROGRAM
from segformer.errors import UserError
from segformer.validation import OneOf

T = TypeVar("T")


def call(command: Callable[..., None], arguments: Sequence[str]) -> None:
    """Parse the arguments according to the signature of a command, and run the command."""

    def bind(*args: Any, **options: Any) -> Callable[[], None]:
        return functools.partial(command, *args, **options)

    described: Any = functools.wraps(command)(bind)
    del described.__wrapped__  # otherwise tyro would read the signature of the command
    signature = inspect.signature(command)
    hints = {name: with_row_names(hint) for name, hint in get_type_hints(command, include_extras=True).items()}
    described.__annotations__ = hints
    described.__signature__ = signature.replace(
        parameters=[parameter.replace(annotation=hints[name]) for name, parameter in signature.parameters.items()]
    )
    parse(described, arguments, command.__name__, config=(tyro.conf.FlagCreatePairsOff,))()


def parse(kind: Callable[..., T], arguments: Sequence[str], command: str, **options: Any) -> T:
    """Parse arguments into a dataclass, or call a function with them; a UserError says in one line what is wrong.

    ``options`` are passed on to ``tyro.cli``, for example ``default``.
    """
    prog = f"{PROGRAM} {command}"
    help_wanted = bool({"--help", "-h"} & set(arguments))
    printed = io.StringIO()  # not a terminal, so tyro leaves out colors and frames
    errors = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(errors),
            contextlib.nullcontext() if help_wanted else unlimited_width(),
        ):
            return cast("T", tyro.cli(kind, args=arguments, prog=prog, registry=row_name_registry(), **options))
    except SystemExit as stop:
        if stop.code:
            raise UserError(f"{summarize(errors.getvalue())}; see {prog} --help") from None
        print(wrap(printed.getvalue()), end="")
        raise


@contextlib.contextmanager
def unlimited_width() -> Iterator[None]:
    """Keep tyro from wrapping error messages: pretend that the terminal is very wide."""
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if columns is not None:
            os.environ["COLUMNS"] = columns


def summarize(printed: str) -> str:
    r"""Return an error message of tyro in one line, without its heading and with the option that tyro suggests.

    >>> summarize(" Oops\n ----\n  Unknown: --stps\n  ----\n  Perhaps you meant:\n      --steps INT\n")
    "unknown: --stps; did you mean '--steps'?"
    """
    sections: list[list[str]] = [[]]
    for line in printed.splitlines():
        if line.strip() and not line.strip(" -"):
            sections.append([])
        elif not line.startswith(" " * 10):  # deeper lines are the help of an option
            sections[-1].append(line.strip())
    _, message, *more = sections
    text = re.sub(r"^Error parsing ((-\S+: )|\S+: )", r"\2", " ".join(message)).rstrip(".")
    near = [line.split()[0] for line in (more[0] if more else []) if line.startswith("-")]
    suggestion = f"; did you mean '{near[0]}'?" if near and more[0][0] == "Perhaps you meant:" else ""
    return text[:1].lower() + text[1:] + suggestion


def wrap(text: str) -> str:
    """Wrap the lines of a help text to the width of the terminal."""
    width = max(40, shutil.get_terminal_size().columns)
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    return "".join(f"{wrapper.fill(line.rstrip())}\n" for line in text.splitlines())


def row_names(mark: OneOf) -> str:
    """Return a sentence for a help text that lists the names in the table of a mark."""
    module, _, table = mark.table.rpartition(".")
    rows = getattr(import_module(f"segformer.{module}"), table)
    rows = rows() if callable(rows) else rows
    return f"{mark.lead}: {', '.join(rows)}."


def with_row_names(hint: Any, text: str = "") -> Any:
    """Return the type of an argument; if it is marked OneOf, its help lists the names in the table.

    ``text`` is the help to use if the type does not contain one.
    """
    kind, *marks = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
    table = next((mark for mark in marks if isinstance(mark, OneOf)), None)
    if table is None:
        return hint
    others = [mark for mark in marks if mark is not table] or [arg(metavar="NAME", help=text)]
    listed = [replace(m, help=f"{m.help} {row_names(table)}") if hasattr(m, "help") else m for m in others]
    return Annotated[(kind, *listed)]


def row_name_registry() -> ConstructorRegistry:
    """Return tyro's registry with one more rule: the help of a config field marked OneOf lists the allowed names."""
    registry = ConstructorRegistry()
    asked: list[type] = []  # types that are being described: tyro asks the rule about them a second time

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info.type in asked or not is_dataclass(info.type):
            return None
        asked.append(info.type)
        spec = ConstructorRegistry.get_struct_spec(info)
        asked.remove(info.type)
        if not isinstance(spec, StructConstructorSpec):
            return None
        return replace(spec, fields=tuple(map(field_with_row_names, spec.fields)))

    return registry


def field_with_row_names(field: StructFieldSpec) -> StructFieldSpec:
    """Return a config field; if it is marked OneOf, its help then lists the names that OneOf refers to."""
    if not any(isinstance(mark, OneOf) for mark in getattr(field.type, "__metadata__", ())):
        return field
    text = field.helptext() if callable(field.helptext) else field.helptext
    return replace(field, type=with_row_names(field.type, text or ""))
