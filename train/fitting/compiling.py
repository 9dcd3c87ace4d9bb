"""Has PyTorch compile the layers that are trained."""

from typing import Any

import torch
from peft import PeftModel

from edgedc.errors import InputError


def check_compiler() -> None:
    """Compile something small, as nothing less tells whether it works. Raises InputError where it does not."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except RuntimeError as error:
        lines = str(error).splitlines()
        reason = next((line for line in lines if "error:" in line or "Error:" in line or "No " in line), lines[0])
        needed = "triton and a C compiler" if device == "cuda" else "a C++ compiler (g++, or the one that CXX names)"
        raise InputError(
            f"--compile: PyTorch cannot compile here: {reason.strip()[:200]}: install {needed} and Python's headers, "
            "or leave the flag out"
        ) from error


def compile_layers(model: Any) -> None:
    """All but the output layer, which is applied to other places in every batch. Names of weights stay."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    inner.get_decoder().compile(dynamic=True)
