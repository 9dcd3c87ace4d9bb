"""Whether the model that artifacts are compared with fits into memory, and in what precision: asked before any work."""

import math
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from edgedc.errors import EdgedcError

from ..model.weights import open_weights

# torch, transformers and what they keep for a run: 210 MB after the imports, up to 350 MB while a model of 135M answers
RUNTIME_BYTES = 400_000_000
# Prompt and reply, whose scores for every token of the vocabulary are in memory twice.
SCORED_TOKENS = 512
WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


def available_memory() -> int | None:
    """Bytes that a program can have without swapping, as Linux counts them; elsewhere all that the machine has.

    None where the system does not say.
    """
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file() and (found := re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo.read_text("ascii"), re.M)):
        return 1024 * int(found[1])
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def reference_bytes(model: Path, dtype: str) -> int:
    """About the memory that running a model folder with torch takes, by the headers of its weights.

    An adapter is merged where the weights lie, one matrix after the other, and is no second copy.
    """
    shapes = [tensor.shape for tensor in open_weights(model).values()]
    sizes = [math.prod(shape) for shape in shapes]
    vocabulary = max((shape[0] for shape in shapes if len(shape) == 2), default=0)
    scores = 2 * SCORED_TOKENS * vocabulary * WIDTHS["float32"]
    return sum(sizes) * WIDTHS[dtype] + max(sizes, default=0) * WIDTHS["float32"] + scores + RUNTIME_BYTES


def reference_dtype(model: Path, free: int | None, say: Callable[[str], None]) -> str:
    """torch's name of the precision in which the reference is held: float32, or 16 bits where that does not fit.

    The 16 bits are those that most weights are stored in; bfloat16 for a model in float32. `free` is in bytes, None
    where it is not known. `say` is told when it is not float32. Raises EdgedcError when neither fits.
    """
    stored: Counter[str] = Counter()
    for tensor in open_weights(model).values():
        stored[tensor.dtype] += math.prod(tensor.shape)
    half = "float16" if stored.most_common(1)[0][0] == "F16" else "bfloat16"
    whole, less = reference_bytes(model, "float32"), reference_bytes(model, half)
    if free is None or whole <= free:
        return "float32"
    if less > free:
        raise EdgedcError(
            f"{model}: comparing with it needs about {less / 1e9:.1f} GB of memory ({half}; float32 "
            f"{whole / 1e9:.1f} GB), and {free / 1e9:.1f} GB are available: end other programs, or give --no-gate"
        )
    say(
        f"reference: held in {half}, {less / 1e9:.1f} GB (float32 needs {whole / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
        "are available): no limit is tighter than that of this type"
    )
    return half
