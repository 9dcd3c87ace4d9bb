"""Makes a bundle: the artifacts asked for, each through the gate, and the manifest last."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgedc.backends.chat import ChatTemplate, raw_prompts, special_tokens
from edgedc.bundle import Artifact, Manifest, check_model_folder, hashes_read, write_manifest
from edgedc.errors import InputError, NoGpu
from edgedc.files import scratch_folder, staged_folder

from .artifacts import Say, Weights, make_gguf, make_onnx
from .gate.candidates import Measured, candidate_types, choose, measured, model_right
from .gate.gate import gate, gated
from .gate.memory import available_memory, reference_dtype
from .gate.observe import Reference, reference_of
from .gate.prompts import Prompt, check_length, prompts_for
from .gguf.imatrix import Importance, importance
from .gguf.llama_cpp import find_converter
from .gguf.quantize import UNQUANTIZED
from .gguf.tensors import read_tensors
from .gguf.to_gguf import read_model
from .gguf.vocab import read_chat_template
from .model.adapter import with_adapter
from .model.families import is_known, read_architecture
from .model.weights import open_weights
from .order import Order, check_order
from .over_base import over_base
from .report import finish
from .room import check_room, needed_bytes
from .staging import (
    alone,
    bundle_manifest,
    check_tokenizer,
    kept_artifacts,
    link_all,
    with_artifacts,
    without_replaced,
    write_companions,
)

NOTICE_S = 5.0
NO_GATE, NO_GPU = "--no-gate", "no GPU"  # why an artifact was not gated, as the manifest has it


@dataclasses.dataclass(frozen=True)
class Work:
    """A bundle in the making: where it is staged, what it is made of, and what it is compared with.

    `scratch` is on the same disk, and gone at the end. `kept` are artifacts of an older bundle of the same model.
    `dtype` is torch's name of the precision in which the model is held that artifacts are compared with.
    """

    order: Order
    weights: Weights
    manifest: Manifest
    kept: list[Artifact]
    prompts: list[Prompt]
    calibration: list[Prompt]
    dtype: str
    stage: Path
    scratch: Path
    say: Say

    @property
    def f16(self) -> Path:
        return self.scratch / "f16.gguf"


def ship(model: Path, out: Path, order: Order, say: Say) -> tuple[Manifest, list[Artifact]]:
    """Write the bundle `out`; return its manifest and the artifacts made now.

    A bundle of the same model keeps its other artifacts. Nothing is left when it fails. An artifact that fails its
    gate is kept and marked. Raises InputError, before any work, for what cannot be exported or would overwrite
    something else, and GateError when no type stays within `max_drop`.
    """
    with ExitStack() as stack:
        whole = model
        if order.adapter:
            whole = stack.enter_context(over_base(model, order.adapter))
        manifest = bundle_manifest(whole, model.resolve().name, order.adapter)
        weights, prompts, calibration = _prepared(whole, manifest, order, say)
        read = hashes_read({"prompts": order.prompts, "calibrate": order.calibrate})
        manifest = dataclasses.replace(manifest, recipe=manifest.recipe | {"export": order.recipe | {"read": read}})
        dtype = reference_dtype(whole, available_memory(), say) if order.gated else "float32"
        check_room(out, needed_bytes(order, weights.sources, sum(prompt.generate for prompt in prompts)))
        stack.enter_context(alone(out))
        kept = kept_artifacts(out, manifest, say)
        stage = stack.enter_context(staged_folder(out))
        if kept:
            link_all(out, stage)
        write_companions(whole, stage, manifest)
        with scratch_folder(out) as scratch:
            made = _make(Work(order, weights, manifest, kept, prompts, calibration, dtype, stage, scratch, say))
        manifest = finish(stage, with_artifacts(manifest, [*without_replaced(stage, kept, made), *made]))
        write_manifest(stage, manifest)
    return manifest, made


def check(model: Path, manifest: Manifest, order: Order, say: Say) -> None:
    """Raises what `ship` would, whatever the weights are: of the config, tokenizer, template, and of questions."""
    check_model_folder(model)
    check_tokenizer(model)
    _prepared(model, manifest, order, say)
    if "gguf" in order.formats and is_known(model):
        read_model(model)


def _prepared(model: Path, manifest: Manifest, order: Order, say: Say) -> tuple[Weights, list[Prompt], list[Prompt]]:
    """What is exported, what it is compared on and what it is calibrated on."""
    check_order(model, order)
    prompts = prompts_for(manifest, order.prompts) if order.gated else []
    calibration = [p for p in prompts_for(manifest, order.calibrate) if p.generate] if order.calibrate else []
    weights = _weights(model, manifest.name, order, say)
    check_length(model, _chat(model, manifest), [*prompts, *calibration], manifest.context_length)
    return weights, prompts, calibration


def _weights(model: Path, name: str, order: Order, say: Say) -> Weights:
    """Everything that can be wrong with a model's config, or with an adapter for it, is said here."""
    if "gguf" not in order.formats:
        return Weights(model, name)
    if not is_known(model):
        return Weights(model, name, llama_cpp=find_converter(order.llama_cpp, say))
    if order.llama_cpp:
        raise InputError(f"--llama-cpp {order.llama_cpp}: not needed, edgedc converts this family itself; leave it out")
    architecture = read_architecture(model)
    tensors = None
    if order.adapter:
        tensors = with_adapter(open_weights(model), order.adapter, tied=architecture.tied)
    return Weights(model, name, tensors)


def _chat(model: Path, manifest: Manifest) -> ChatTemplate:
    if manifest.chat_template_sha256 is None:
        return raw_prompts(model)
    return ChatTemplate(read_chat_template(model), special_tokens(model), str(model))


def _make(work: Work) -> list[Artifact]:
    """Every artifact, in the stage, with the gate's figures."""
    order, made = work.order, []
    matrix = None
    if "gguf" in order.formats:
        if order.needs_f16:
            work.weights.to_gguf(work.f16, "f16")
        matrix = _calibrated(work)
        if order.max_drop is None:
            made = [make_gguf(work.weights, work.f16, work.stage, kind, matrix, work.say) for kind in order.types]
    if "onnx" in order.formats:
        context, parameters = work.manifest.context_length, work.manifest.parameters
        for precision in order.graphs:
            made.append(
                make_onnx(work.weights.model, work.stage, precision, order.provider, context, parameters, work.say)
            )
    if not order.gated:
        return [_ungated(artifact, NO_GATE) for artifact in made]
    tick = _ticker("reference", len(work.prompts), work.say)
    with reference_of(
        work.weights.model,
        work.prompts,
        work.manifest.context_length,
        work.scratch,
        adapter=order.adapter,
        dtype=work.dtype,
        on_prompt=tick,
    ) as reference:
        smallest = [] if order.max_drop is None else [_smallest(work, matrix, order.max_drop, reference)]
        return _with_source(work, smallest + _gated(work, made, reference), reference)


def _calibrated(work: Work) -> Importance | None:
    if not work.calibration:
        return None
    chat = _chat(work.stage, work.manifest)
    tick = _ticker(f"calibrating on {work.order.calibrate}", len(work.calibration), work.say)
    rendered = [chat.render(prompt.messages) for prompt in work.calibration]
    return importance(work.f16, rendered, work.manifest.context_length, on_prompt=tick)


def _smallest(work: Work, matrix: Importance | None, max_drop: float, reference: Reference) -> Artifact:
    """The smallest type that loses at most `max_drop`, gated, with the figures of all that were tried."""

    with _aside(work) as folder:  # in the stage they would take the places of kept artifacts of their types

        def measure(kind: str) -> Measured:
            artifact = make_gguf(work.weights, work.f16, folder, kind, matrix, lambda _: None)
            write_manifest(folder, with_artifacts(work.manifest, [artifact]))
            return measured(folder, artifact, work.prompts, reference, work.manifest.context_length)

        kinds = candidate_types(read_tensors(work.f16), calibrated=matrix is not None)
        right = model_right(work.prompts, reference)
        done = choose(kinds, measure, lambda a: (folder / a.path).unlink(), max_drop, right, work.say)
        (folder / done.artifact.path).replace(work.stage / done.artifact.path)
    details = done.artifact.details | {"max_drop": max_drop, "candidates": done.rows}
    return dataclasses.replace(done.artifact, details=details)


def _gated(work: Work, made: list[Artifact], reference: Reference) -> list[Artifact]:
    _show_gate(work, made)
    judged = []
    for artifact in made:
        tick = _ticker(f"{artifact.path}: gate", len(work.prompts), work.say)
        try:
            result = gate(work.stage, artifact, work.prompts, reference, work.manifest.context_length, tick)
            judged.append(gated(artifact, result))
        except NoGpu:
            work.say(f"{artifact.path}: not gated ({NO_GPU}), and a CPU cannot run it: it has operators for CUDA alone")
            judged.append(_ungated(artifact, NO_GPU))
    return judged


def _with_source(work: Work, made: list[Artifact], reference: Reference) -> list[Artifact]:
    """`made`, in which quantised GGUFs fail where the f16 that they come from does.

    Their own limits leave room for what they round off, and a mistake of the converter could hide in it; in f16 it
    cannot.
    """
    quantised = [a for a in made if a.format == "gguf" and a.quantization not in UNQUANTIZED]
    if not quantised:
        return made
    source = next((a for a in made if a.quantization == "f16"), None) or _source(work, reference)
    return [_after_source(a, source) if a in quantised else a for a in made]


def _source(work: Work, reference: Reference) -> Artifact:
    """The f16 that is no part of the bundle, gated in a folder of its own."""
    with _aside(work) as folder:
        artifact = make_gguf(work.weights, work.f16, folder, "f16", None, lambda _: None)
        write_manifest(folder, with_artifacts(work.manifest, [artifact]))
        tick = _ticker(f"{artifact.path}, which is quantised: gate", len(work.prompts), work.say)
        result = gate(folder, artifact, work.prompts, reference, work.manifest.context_length, tick)
    return gated(artifact, result)


@contextmanager
def _aside(work: Work) -> Iterator[Path]:
    """A folder for artifacts to be tried in, with all that they need beside them but a manifest."""
    with tempfile.TemporaryDirectory(dir=work.scratch) as name:
        write_companions(work.weights.model, Path(name), work.manifest)
        yield Path(name)


def _after_source(artifact: Artifact, source: Artifact) -> Artifact:
    figures = {name: source.gate[name] for name in ("text", "decomposition", "near_ties", "top1", "kl", "passed")}
    artifact = dataclasses.replace(artifact, details=artifact.details | {"source": figures})
    if source.passed:
        return artifact
    failed = {
        "passed": False,
        "failed": ("source", *artifact.gate["failed"]),
        "first_difference": f"the f16 that it is made from: {source.gate['first_difference']}",
    }
    return dataclasses.replace(artifact, passed=False, gate=artifact.gate | failed)


def _ungated(artifact: Artifact, reason: str) -> Artifact:
    return dataclasses.replace(artifact, details=artifact.details | {"not_gated": reason})


def _show_gate(work: Work, made: list[Artifact]) -> None:
    """The gate opens artifacts as users do, through the manifest."""
    write_manifest(work.stage, with_artifacts(work.manifest, [*without_replaced(work.stage, work.kept, made), *made]))


def _ticker(label: str, total: int, say: Say) -> Callable[[], None]:
    """Counts prompts, and says how many are done, with seconds, every few seconds and at the end."""
    started = noticed = time.perf_counter()
    done = 0

    def tick() -> None:
        nonlocal done, noticed
        done += 1
        at = time.perf_counter()
        if done == total or at - noticed > NOTICE_S:
            noticed = at
            say(f"{label}: {done} of {total} prompts, {at - started:.1f} s")

    return tick
