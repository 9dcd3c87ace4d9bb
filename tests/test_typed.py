"""JSON as the dataclasses that it was written from, and what is said where it is something else."""

import dataclasses
import json
from typing import Any, Literal

import pytest

from edgedc.typed import typed


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    share: float | None = None


@dataclasses.dataclass(frozen=True)
class Whole:
    count: int
    right: bool
    kind: Literal["a", "b"] | None
    parts: tuple[Part, ...]
    interval: tuple[float, float] | None
    named: dict[str, Part] = dataclasses.field(default_factory=dict)
    rest: dict[str, Any] = dataclasses.field(default_factory=dict)


WHOLE = Whole(3, True, "a", (Part("x"), Part("y", 0.5)), (0, 1.5), {"z": Part("z")}, {"w": [None]})
ROW = json.loads(json.dumps(dataclasses.asdict(WHOLE)))


def test_what_was_written_is_read_back() -> None:
    assert typed(ROW, Whole) == WHOLE
    assert typed({k: v for k, v in ROW.items() if k not in ("named", "rest")}, Whole).named == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": None}, "count: None is not a whole number"),
        ({"count": True}, "count: True is not a whole number"),
        ({"count": 1.0}, "count: 1.0 is not a whole number"),
        ({"right": 1}, "right: 1 is not true or false"),
        ({"kind": "c"}, "kind: 'c' is not one of a, b"),
        ({"kind": ["a"]}, "kind: ['a'] is not one of a, b"),
        ({"parts": {}}, "parts: {} is not a list"),
        ({"parts": [None]}, "parts[0]: None is not an object"),
        ({"parts": [{}]}, "parts[0].name: missing"),
        ({"parts": [{"name": "x", "share": "1"}]}, "parts[0].share: '1' is not a number"),
        ({"parts": [{"name": "x", "share": float("nan")}]}, "parts[0].share: nan is not a number"),
        ({"parts": [{"name": "x", "share": 10**400}]}, "parts[0].share: 1000000000000000000000000000000000000000 is"),
        ({"interval": [1.0]}, "interval: [1.0] is not a list of 2"),
        ({"named": [1]}, "named: [1] is not an object"),
        ({"named": {"z": {"name": 1}}}, "named.z.name: 1 is not text"),
        ({"more": 1}, "more: unknown"),
    ],
)
def test_what_stands_elsewhere_is_named_with_its_place(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"^\w") as caught:
        typed(ROW | change, Whole)
    assert said in str(caught.value)


def test_a_list_is_no_object() -> None:
    with pytest.raises(ValueError, match=r"\[\] is not an object"):
        typed([], Whole)
