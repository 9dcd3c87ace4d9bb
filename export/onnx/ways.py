"""What else a model can be exported as, where one way would make something else of it."""

from pathlib import Path
from typing import Any

from edgedc.errors import InputError
from edgedc.files import read_object

from ..model.families import is_known, read_architecture


def other_ways(model: Path) -> str:
    """The end of a refusal: what is named there is not refused as well. Of other families only trying can tell."""
    ways = []
    for way, check in (("as fp32", check_rope), ("to GGUF", _check_gguf)):
        try:
            check(model)
        except InputError:
            continue
        ways.append(way)
    return f"export it {' or '.join(ways)}" if ways else "run it as it is, with --backend transformers"


def check_rope(model: Path) -> None:
    """Raises InputError for a rope that optimum's fp32 graph would not have.

    transformers takes other frequencies for a text that is longer than the model first was for. optimum follows one
    run of the model, over a short text, and the gate's questions are short as well.
    """
    path = model / "config.json"
    config = read_object(path)
    original = config.get("original_max_position_embeddings")
    if original is None or not rope_types(config) & {"longrope", "su"}:
        return
    if original != config.get("max_position_embeddings"):
        mend = "run it as it is, with --backend transformers" if is_known(model) else "export it to GGUF"
        raise InputError(
            f"{path}: rope scaling 'longrope' changes beyond {original} tokens, and optimum's graph would not: {mend}"
        )


def rope_types(config: dict[str, Any]) -> set[str]:
    """By transformers' names, old (`rope_scaling`, `type`) and new (`rope_parameters`, which may be per layer type)."""
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    groups = [value for value in scaling.values() if isinstance(value, dict)] or [scaling]
    return {str(group.get("rope_type", group.get("type", "default"))) for group in groups}


def _check_gguf(model: Path) -> None:
    if is_known(model):
        read_architecture(model)
