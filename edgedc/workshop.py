"""Where the packages that make and convert models are: inside an installed edgedc, at the top of a checkout."""

import importlib
from types import ModuleType

from edgedc.errors import MissingExtra


def workshop(name: str) -> ModuleType:
    """The module `train.x` or `export.x`.

    Raises MissingExtra, which names the extra of that package, when something that the module needs is not there.
    """
    inside, module, extra = f"edgedc.{name}", name, name.partition(".")[0]
    package = f"edgedc.{extra}"
    try:
        importlib.import_module(package)
        module = inside
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
    try:
        return importlib.import_module(module)
    except MissingExtra as error:  # a backend's, whose own extra would not be enough here
        raise MissingExtra(error.package, extra) from error
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] not in ("edgedc", "train", "export"):
            raise MissingExtra(error.name, extra) from error
        raise
