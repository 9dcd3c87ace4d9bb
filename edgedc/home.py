"""Where edgedc keeps what outlives a run on this machine: spending, questions that wait, measurements."""

import os
from pathlib import Path

from edgedc.errors import InputError


def home() -> Path:
    """The folder EDGEDC_HOME, else `edgedc` in XDG_DATA_HOME, else ~/.local/share/edgedc. It may not be there yet.

    Whoever makes it makes it for its owner alone (mode 0700): it holds people's questions. Raises InputError when a
    user has no home folder.
    """
    if named := os.environ.get("EDGEDC_HOME"):
        try:
            return Path(named).expanduser().absolute()
        except RuntimeError:
            raise InputError(f"EDGEDC_HOME={named}: there is no such user: name a folder") from None
    shared = Path(os.environ.get("XDG_DATA_HOME", ""))
    if shared.is_absolute():  # the XDG specification: a relative path is to be ignored
        return shared / "edgedc"
    try:
        return Path.home() / ".local" / "share" / "edgedc"
    except RuntimeError:
        raise InputError("this user has no home folder: name one for edgedc with EDGEDC_HOME") from None
