"""The students of arXiv 2402.15000, by what they are trained on. The `method` of a manifest names one of them."""

from pathlib import Path
from typing import Literal, get_args

from edgedc.errors import InputError

Method = Literal["S_D-T", "S_D-R", "S_E-T", "S_E-A", "Direct"]
METHODS: tuple[Method, ...] = get_args(Method)

# These answer questions; asked for subquestions they would say something all the same.
ANSWERING: tuple[Method, ...] = ("S_E-T", "S_E-A", "Direct")


def check_decomposes(model: Path, method: str) -> None:
    """Raises InputError for a model that was trained to answer."""
    if method in ANSWERING:
        raise InputError(
            f"{model}: trained by {method} to answer questions, not to decompose them: name a decomposer "
            "(S_D-T or S_D-R)"
        )
