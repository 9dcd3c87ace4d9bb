"""What to export, and everything about it that can be checked before the work starts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedc.backends.transformers import check_saved_by
from edgedc.bundle import Format
from edgedc.errors import InputError, need

from .gguf.quantize import UNQUANTIZED, types_of
from .model.families import is_known
from .onnx.to_onnx import check_onnx

QUANTIZATIONS = "f16,q8_0,q4_k_m"
PACKAGES = {
    "gguf": ("llama_cpp", "gguf"),
    "onnx": ("onnx", "onnxruntime", "torch", "transformers"),
    "gate": ("torch", "transformers"),
}


@dataclass(frozen=True)
class Order:
    """`quantizations` are GGUF's types, None the default ones, and `precisions` ONNX's; separated by commas.

    `adapter` is a LoRA to be added to the model; `prompts` None means those of microworld; `calibrate` names questions
    for an importance matrix; with `max_drop`, a share, the smallest GGUF type is chosen that loses no more than that.
    `llama_cpp` is a checkout of llama.cpp, for families that edgedc does not convert itself.
    `recipe` is for the manifest: every flag, and where its value came from.
    """

    formats: tuple[Format, ...]
    quantizations: str | None = None
    precisions: str = "fp32"
    provider: str = "cpu"
    adapter: Path | None = None
    prompts: Path | None = None
    calibrate: Path | None = None
    max_drop: float | None = None
    llama_cpp: Path | None = None
    gated: bool = True
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def types(self) -> list[str]:
        """GGUF's, as llama.cpp spells them, each once. Raises InputError for what is not one."""
        return types_of(
            QUANTIZATIONS if self.quantizations is None else self.quantizations, calibrated=self.calibrate is not None
        )

    @property
    def needs_f16(self) -> bool:
        """Whether a GGUF in f16 is made, which the quantised types come from."""
        return self.max_drop is not None or bool(set(self.types) - {"f32", "bf16"})

    @property
    def graphs(self) -> list[str]:
        """ONNX's precisions in lower case, each once."""
        return list(dict.fromkeys(precision.strip() for precision in self.precisions.lower().split(",")))


def check_order(model: Path, order: Order) -> None:
    """Raises InputError for an order that cannot be carried out for a model, MissingExtra for a missing package."""
    for use in (*order.formats, *(["gate"] if order.gated else [])):
        for package in PACKAGES[use]:
            need(package, package, "export")
    if order.gated or "onnx" in order.formats:  # for which transformers reads the model
        check_saved_by(model)
    if "gguf" in order.formats:
        types = order.types  # raises what is wrong with them
        if order.calibrate and order.max_drop is None and set(types) <= set(UNQUANTIZED):
            raise InputError(
                f"--calibrate fits quantised types, and {', '.join(types)} is none: leave it out, or name one "
                "with --quantization"
            )
    elif order.calibrate or order.max_drop is not None:
        raise InputError("--calibrate and --max-drop are about GGUF types: add --format gguf")
    if order.max_drop is not None and (not order.gated or order.quantizations is not None):
        raise InputError("--max-drop chooses the type by measuring: leave out --no-gate and --quantization")
    if "onnx" in order.formats:
        if order.adapter:
            raise InputError("--adapter is added while a GGUF is written; for ONNX merge first with  edgedc merge")
        for precision in order.graphs:
            check_onnx(model, precision, order.provider)
    if order.adapter and not is_known(model):
        raise InputError(f"{model}: --adapter cannot be added to this family; merge first with  edgedc merge")
