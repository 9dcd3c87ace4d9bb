"""What llama.cpp has to say: it would write that to stderr by itself, and is heard here instead."""

import ctypes
from collections import deque

from edgedc.errors import EdgedcError, MissingExtra

try:
    import llama_cpp
except ModuleNotFoundError as error:
    raise MissingExtra("llama-cpp-python", "llamacpp") from error
except Exception as error:  # RuntimeError, OSError and others where its library was built for another machine
    raise EdgedcError(f"llama-cpp-python is installed and does not load: {error}: install it again") from error

_ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR (ggml.h); llama_cpp/_logger.py has an older numbering
_errors: deque[str] = deque(maxlen=8)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # llama_cpp has no types
def _keep_errors(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    line = text.decode("utf-8", "replace").strip()
    if level == _ERROR_LEVEL and line:
        _errors.append(line)


# The callback is global to the process, and as a module's name it stays alive.
llama_cpp.llama_log_set(_keep_errors, ctypes.c_void_p(0))


def forget() -> None:
    """Before something that may fail, so that `said` tells of that."""
    _errors.clear()


def said() -> str:
    """The first errors since `forget`: the cause; what follows only passes it on."""
    return "; ".join(list(_errors)[:2]) or "it gave no reason"
