"""Conversion of configs (frozen dataclasses of JSON values) to JSON objects and back."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from segformer.errors import UserError
from segformer.validation import check_choice, closest

T = TypeVar("T")


def to_json(config: Any) -> dict[str, Any]:
    """Return a config as a JSON object."""
    return asdict(config)


def from_json(cls: type[T], values: Any, where: str = "") -> T:
    """Build a config from a JSON object; raises a UserError that names an unknown, missing or invalid field.

    ``where`` is the name of the object in error messages, such as "train"; it is empty for the outermost object.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where or cls.__name__} must be an object, got {values!r}")
    hints = get_type_hints(cls)
    prefix = f"{where}." if where else ""
    _check_names(cls, values, hints, prefix)
    return cls(**{key: _parse(hints[key], value, prefix + key) for key, value in values.items()})


def _check_names(cls: type, values: Mapping[str, Any], hints: Mapping[str, Any], prefix: str) -> None:
    for key in values:
        if key not in hints:
            raise UserError(f"unknown field '{prefix}{key}'{closest(key, hints)}")
    for field in fields(cls):
        required = field.default is MISSING and field.default_factory is MISSING
        if required and field.name not in values:
            raise UserError(f"missing field '{prefix}{field.name}'")


def _parse(kind: Any, value: Any, where: str) -> Any:
    """Convert a JSON value to the type ``kind`` of a field; raises a UserError if the value has a different type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [a for a in arguments if a is not type(None)]
        return _parse(inner, value, where)
    if is_dataclass(kind):
        return from_json(cast("type", kind), value, where)
    if origin is Literal:
        check_choice(where, value if isinstance(value, str) else repr(value), arguments)
        return value
    if origin is tuple:
        return _parse_tuple(arguments, value, where)
    return _parse_plain(dict if origin is dict else kind, value, where)


def _parse_plain(kind: type, value: Any, where: str) -> Any:
    is_bool = isinstance(value, bool)
    if kind is float and isinstance(value, int) and not is_bool:
        return float(value)
    if not isinstance(value, kind) or (kind is int and is_bool):
        raise UserError(f"{where} must be {kind.__name__}, got {value!r}")
    return value


def _parse_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{where} must be a list, got {value!r}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise UserError(f"{where} must have {len(kinds)} values, got {len(value)}: {value!r}")
    return tuple(_parse(kind, v, f"{where}[{i}]") for i, (kind, v) in enumerate(zip(kinds, value, strict=True)))
