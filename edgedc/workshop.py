"""Where the packages that make and convert models are: inside an installed edgedc, at the top of a checkout."""

import importlib
from types import ModuleType

from edgedc.errors import MissingExtra


def workshop(name: str) -> ModuleType:
    """The module `train.x` or `export.x`.

    Raises MissingExtra when a package that the module needs is not there.
    """
    inside, module = f"edgedc.{name}", name
    package = f"edgedc.{name.partition('.')[0]}"
    try:
        importlib.import_module(package)
        module = inside
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] not in ("edgedc", "train", "export"):
            raise MissingExtra(error.name, name.split(".")[0]) from error
        raise
