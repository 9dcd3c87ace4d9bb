"""What is installed here, and whether a bundle is still, on this machine, what was exported."""

import hashlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgedc import __version__
from edgedc.backends import ENGINE_OF, Choice, ModelBackend, open_choice
from edgedc.bundle import CHAT_TEMPLATE, Artifact, Manifest
from edgedc.errors import EdgedcError, InputError, MissingExtra
from edgedc.files import sha256_of
from edgedc.prompts import MAX_TOKENS_DECOMPOSE

# What each extra of pyproject.toml brings itself; `all` and `onnx-gpu` are others together, or one in another build.
EXTRAS = {
    "llamacpp": ("llama-cpp-python", "jinja2"),
    "onnx": ("onnxruntime", "tokenizers", "jinja2", "numpy"),
    "train": ("torch", "transformers", "peft", "accelerate", "tokenizers", "jinja2"),
    "export": ("gguf", "onnx", "onnx-ir", "onnxruntime-genai", "sentencepiece"),
    "optimum": ("optimum", "optimum-onnx", "transformers", "onnxruntime-genai"),
    "hub": ("datasets", "huggingface_hub"),
    "serve": ("starlette", "uvicorn", "prometheus_client"),
    "qlora": ("bitsandbytes",),
    "ray": ("ray",),
}
_OTHER_BUILDS = {"onnxruntime": ("onnxruntime-gpu",)}
_NEEDS = {"gguf": ("llama_cpp", "llama-cpp-python", "llamacpp"), "onnx": ("onnxruntime", "onnxruntime", "onnx")}

Outcome = Literal["ok", "FAILED", "skipped"]


@dataclass(frozen=True)
class Check:
    """One thing looked at in a bundle; `detail` says what is wrong, or why it was skipped."""

    of: str
    check: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class Installed:
    """`packages` are versions by extra and name, None for what is missing; `providers` are onnxruntime's.

    `broken` says of packages that are there why they do not load, as where they were built for another machine.
    `llama_cpp_amx` says whether llama.cpp was built with kernels that are not used here; see `model_params` of
    edgedc/backends/llamacpp.py. `llama_cpp_gpu`: it finds a GPU that it was built for.
    """

    edgedc: str
    python: str
    packages: dict[str, dict[str, str | None]]
    broken: dict[str, str]
    providers: list[str]
    llama_cpp_amx: bool
    llama_cpp_gpu: bool

    def missing(self) -> dict[str, str]:
        """The pip command of each extra that is not wholly here."""
        lacking = [extra for extra, versions in self.packages.items() if None in versions.values()]
        return {extra: f"pip install 'edgedc[{extra}]'" for extra in lacking}


def installed() -> Installed:
    packages = {extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()}
    broken = {package: why for module, package, _ in _NEEDS.values() if (why := _does_not_load(module))}
    amx, gpu = (False, False) if "llama-cpp-python" in broken else _llama_cpp_built()
    return Installed(__version__, platform.python_version(), packages, broken, _providers(), amx, gpu)


def _does_not_load(module: str) -> str:
    """ "" where it loads, or is not there."""
    if importlib.util.find_spec(module) is None:
        return ""
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _llama_cpp_built() -> tuple[bool, bool]:
    """With AMX, for a GPU."""
    try:
        from edgedc.backends.llamacpp import has_amx, has_gpu
    except MissingExtra:
        return False, False
    return has_amx(), has_gpu()


def check_files(folder: Path, manifest: Manifest) -> list[Check]:
    """Every file of the manifest by its sha256, and the chat template."""
    expected = {name: sha for a in manifest.artifacts for name, sha in zip(a.files, a.sha256, strict=True)}
    checks = [_check_file(folder, name, sha) for name, sha in (expected | manifest.files).items()]
    if not manifest.files:
        checks.append(Check("other files", "sha256", "skipped", "the manifest has no hashes of them: export again"))
    template = folder / CHAT_TEMPLATE
    if manifest.chat_template_sha256 is None:
        right, wrong = not template.exists(), "there is one, which the model that was exported has not"
    elif not manifest.chat_template_sha256:
        return [*checks, Check(CHAT_TEMPLATE, "template", "skipped", "the manifest has no hash of it: export again")]
    else:
        right = _check_file(folder, CHAT_TEMPLATE, manifest.chat_template_sha256).outcome == "ok"
        wrong = "missing, or not the one that the model was exported with"
    return [*checks, Check(CHAT_TEMPLATE, "template", "ok" if right else "FAILED", "" if right else wrong)]


def cannot_run(folder: Path, artifact: Artifact) -> str:
    """Why an artifact cannot be tried here; "" where it can."""
    if artifact.passed is False:
        return "it failed its gate when it was exported"
    if artifact.for_cuda and "CUDAExecutionProvider" not in _providers():
        return "a graph for CUDA, and onnxruntime offers no CUDA here"
    module, package, extra = _NEEDS[artifact.format]
    if importlib.util.find_spec(module) is None:
        return str(MissingExtra(package, extra))
    files = (_check_file(folder, name, sha) for name, sha in zip(artifact.files, artifact.sha256, strict=True))
    return "" if all(check.outcome == "ok" for check in files) else "its files are not those that were exported"


def try_artifact(folder: Path, manifest: Manifest, artifact: Artifact, threads: int | None) -> Iterator[Check]:
    """Load an artifact and ask it the gate's smoke prompt, a GGUF on a GPU too where llama.cpp finds one.

    For a process of its own: native code may end it. Raises EdgedcError when it does not load or run.
    """
    backend = open_choice(Choice(folder, manifest, artifact, ENGINE_OF[artifact.format]), threads=threads)
    yield _check_special_ids(manifest, artifact, backend)
    yield _check_template(manifest, artifact, backend)
    yield _check_smoke(manifest, artifact, backend)
    backend.close()
    if artifact.format == "gguf" and _llama_cpp_built()[1]:
        backend = open_choice(Choice(folder, manifest, artifact, "llamacpp-gpu"), threads=threads)
        yield replace(_check_smoke(manifest, artifact, backend), check="smoke prompt on the GPU")
        backend.close()


def _check_file(folder: Path, name: str, expected: str) -> Check:
    path = folder / name
    if not path.is_file():
        return Check(name, "sha256", "FAILED", "missing: copy the bundle again")
    try:
        changed = sha256_of(path) != expected
    except InputError as error:
        return Check(name, "sha256", "FAILED", str(error))
    wrong = "changed since it was exported: copy the bundle again"
    return Check(name, "sha256", "FAILED" if changed else "ok", wrong if changed else "")


def _check_special_ids(manifest: Manifest, artifact: Artifact, backend: ModelBackend) -> Check:
    if manifest.special_ids is None:
        return Check(artifact.path, "BOS/EOS", "skipped", "the manifest does not hold them: export again")
    wrong = manifest.special_ids.difference(backend.special_ids())
    return Check(artifact.path, "BOS/EOS", "FAILED" if wrong else "ok", wrong or "")


def _check_template(manifest: Manifest, artifact: Artifact, backend: ModelBackend) -> Check:
    """The template in the artifact itself, which programs other than edgedc use."""
    expected, got = manifest.chat_template_sha256, backend.template
    if expected == "":
        return Check(artifact.path, "template", "skipped", "the manifest has no hash of it: export again")
    right = expected == (None if got is None else hashlib.sha256(got.encode()).hexdigest())
    wrong = "the chat template in it is not the one that the model was exported with"
    return Check(artifact.path, "template", "ok" if right else "FAILED", "" if right else wrong)


def _check_smoke(manifest: Manifest, artifact: Artifact, backend: ModelBackend) -> Check:
    """The first that is wrong of rendered prompt, token ids and greedy text."""
    smoke: dict[str, Any] | None = artifact.gate.get("smoke")
    if not smoke:
        reason = f" ({artifact.details['not_gated']})" if "not_gated" in artifact.details else ""
        return Check(artifact.path, "smoke prompt", "skipped", f"it was not gated{reason}, so nothing is expected")
    try:
        messages, *expected = (smoke[key] for key in ("messages", "rendered", "token_ids", "text"))
        dated = "strftime_now" in (backend.template or "")  # Llama 3.2's writes the day, which is another by now
        rendered = expected[0] if dated else backend.render(messages)
    except (KeyError, TypeError) as error:
        raise EdgedcError(f"its smoke prompt in the manifest is malformed: {error!r}") from error
    ids = backend.tokenize(rendered)
    room = max(1, manifest.context_length - len(ids))
    text = backend.complete(ids, max_tokens=min(MAX_TOKENS_DECOMPOSE, room)).text
    wrong = ""
    for what, then, now in zip(("rendered prompt", "token ids", "reply"), expected, (rendered, ids, text), strict=True):
        if then != now and not wrong:
            wrong = f"its {what} is not what it was when it was exported: {_short(now)}, then {_short(then)}"
    return Check(artifact.path, "smoke prompt", "FAILED" if wrong else "ok", wrong)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _version(name: str) -> str | None:
    for build in (name, *_OTHER_BUILDS.get(name, ())):
        try:
            return importlib.metadata.version(build)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _providers() -> list[str]:
    try:
        import onnxruntime
    except Exception:  # not installed, or built for another machine
        return []
    providers: list[str] = onnxruntime.get_available_providers()
    return providers
