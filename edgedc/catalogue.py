"""The models that are at hand: those in the box, those that were pulled, and those made below a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgedc.bundle import MANIFEST, Manifest, newest, read_manifest
from edgedc.errors import InputError
from edgedc.files import read_object
from edgedc.home import home

DEFAULT = "default"
_SHIPPED = Path(__file__).parent / "models"
BOX = _SHIPPED / DEFAULT
WEIGHTS = _SHIPPED / "default-weights"
SOURCE = "source.json"


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
    """A folder by its path, or by its name where it was shipped (`default`) or pulled. A path that exists comes first.

    What is neither stays as it is: whoever opens it says what is wrong.
    """
    if name.exists() or len(name.parts) != 1:
        return name
    return next((f / name for f in (_SHIPPED, pulled()) if (f / name).is_dir()), name)


def find_weights(name: str) -> Path:
    """The model folder to train on: as `find_model`, but `default` is what the bundle of that name was made of."""
    return WEIGHTS if name == DEFAULT and not Path(name).exists() else find_model(Path(name))


def without_name() -> tuple[Path, str]:
    """What runs when nobody names a model, and a line that says so: the newest bundle below here, else the box's.

    Raises InputError when there is neither.
    """
    try:
        path = newest("bundle", Path.cwd())
    except InputError:
        if not BOX.is_dir():
            raise
        return BOX, "model: default, which ships with edgedc: small, offline, often wrong; --model names another"
    return path, f"model: {path}"


def at_hand(here: Path) -> Iterator[Entry]:
    """Every model that a verb could be given: shipped, pulled, and made in `here` or up to two levels below it."""
    for path in sorted(_SHIPPED.iterdir()):
        yield from _entry("shipped", path.name, path)
    for path in sorted(pulled().iterdir()) if pulled().is_dir() else []:
        if not path.name.startswith("."):
            yield from _entry("pulled", path.name, path)
    for depth in ("*/", "*/*/"):
        for path in sorted(here.glob(f"{depth}{MANIFEST}")):
            name = path.parent.relative_to(here)
            if not any(part.startswith(".") for part in name.parts):
                yield from _entry("here", str(name), path.parent)


def _entry(where: Literal["shipped", "pulled", "here"], name: str, folder: Path) -> Iterator[Entry]:
    try:
        manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else None
    except InputError:
        return  # of another version, or not ours
    if manifest is None and source_of(folder) is None:
        return
    yield Entry(where, name, folder, manifest, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()))
