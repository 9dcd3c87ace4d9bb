"""The models that are at hand: those in the box, those that were pulled, and those made below a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgedc.bundle import MANIFEST, Manifest, made_below, read_manifest
from edgedc.errors import InputError
from edgedc.files import read_object
from edgedc.home import home

_SHIPPED = Path(__file__).parent / "models"
SOURCE = "source.json"
BOX = "default"  # the decomposer that `make model` makes


@dataclass(frozen=True)
class Entry:
    """`manifest` is None for a model folder that edgedc did not make. `bytes` are those of all its files."""

    where: Literal["shipped", "pulled", "here"]
    name: str
    folder: Path
    manifest: Manifest | None
    bytes: int


@dataclass(frozen=True)
class Source:
    """Where a pulled folder came from. `files` holds the sha256 of what was fetched, by name."""

    repository: str
    revision: str
    files: dict[str, str]
    pulled: str


def pulled() -> Path:
    """The folder of everything that was pulled, each under its own name."""
    return home() / "models"


def source_of(folder: Path) -> Source | None:
    """Where a pulled folder came from; None for others."""
    return Source(**read_object(folder / SOURCE)) if (folder / SOURCE).is_file() else None


def find_model(name: Path) -> Path:
    """A folder by its path, or by its name where it was shipped or pulled. A path that exists comes first.

    What is neither stays as it is: whoever opens it says what is wrong.
    """
    if name.exists() or len(name.parts) != 1:
        return name
    return next((f / name for f in (_SHIPPED, pulled()) if (f / name).is_dir()), name)


def find_weights(name: Path) -> Path:
    """As `find_model`, but of a shipped bundle the folder with its weights: NAME-weights, beside it."""
    folder = find_model(name)
    weights = folder.parent / f"{folder.name}-weights"
    return weights if folder.parent == _SHIPPED and weights.is_dir() else folder


def at_hand(here: Path) -> Iterator[Entry]:
    """Every model that a verb could be given: shipped, pulled, and made at `here` or up to two levels below it."""
    for path in sorted(_SHIPPED.iterdir()):
        yield from _entry("shipped", path.name, path)
    for path in sorted(pulled().iterdir()) if pulled().is_dir() else []:
        if not path.name.startswith("."):
            yield from _entry("pulled", path.name, path)
    for path in sorted(made_below(here)):
        yield from _entry("here", str(path.relative_to(here)), path)


def _entry(where: Literal["shipped", "pulled", "here"], name: str, folder: Path) -> Iterator[Entry]:
    try:
        manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else None
    except InputError:
        return  # of another version, or not ours
    if manifest is None and source_of(folder) is None:
        return
    yield Entry(where, name, folder, manifest, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()))
