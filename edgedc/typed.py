"""JSON that was read, as the dataclass that it was written from: a file may hold anything anywhere."""

import dataclasses
import sys
from collections.abc import Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_CALLED = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def typed(value: Any, hint: Any, place: str = "") -> Any:
    """`value` as the type that `hint` annotates: objects become its dataclasses, lists its tuples.

    Raises ValueError, which names the place in the value, where that is not what stands there, and where a number is
    none (NaN) or has no end.
    """
    kind, of = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if kind in (UnionType, Union):
        [other] = (one for one in of if one is not NoneType)
        return None if value is None else typed(value, other, place)
    if kind is Literal:
        return value if value in of else _refuse(place, value, f"one of {', '.join(map(str, of))}")
    if kind is tuple:
        return _tuple(value, of, place)
    if kind is dict or dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            return _refuse(place, value, "an object")
        below = f"{place}." if place else ""
        if kind is dict:
            return {name: typed(each, of[1], f"{below}{name}") for name, each in value.items()}
        return _dataclass(value, hint, below)
    number = type(value) in (int, float) and abs(value) <= sys.float_info.max  # false for NaN too
    fits = number and hint in (float, type(value)) if hint in (int, float) else type(value) is hint
    return value if fits else _refuse(place, value, _CALLED[hint])


def _tuple(value: Any, of: Sequence[Any], place: str) -> Any:
    if not isinstance(value, list):
        return _refuse(place, value, "a list")
    hints = [of[0]] * len(value) if of[-1] is Ellipsis else of
    if len(hints) != len(value):
        return _refuse(place, value, f"a list of {len(hints)}")
    return tuple(typed(each, one, f"{place}[{k}]") for k, (each, one) in enumerate(zip(value, hints, strict=True)))


def _dataclass(value: dict[str, Any], hint: Any, below: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(hint)}
    if unknown := value.keys() - fields:
        raise ValueError(f"{below}{min(unknown)}: unknown")
    for name, field in fields.items():
        if name not in value and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{below}{name}: missing")
    hints = _hints(hint)
    return hint(**{name: typed(each, hints[name], f"{below}{name}") for name, each in value.items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _refuse(place: str, value: Any, wanted: str) -> Any:
    raise ValueError(f"{place}{': ' if place else ''}{repr(value)[:40]} is not {wanted}")
