"""What a bundle says of itself: export_report.json, the model card, and the Modelfile for Ollama."""

import dataclasses
import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgedc.backends.chat import first_token, read_chat_template, read_special_ids, token_ids
from edgedc.bundle import Artifact, Manifest, hashes_beside
from edgedc.files import read_object, write_text

from .gate.gate import NEAR_TIE
from .gguf.tensors import read_tensors
from .gguf.vocab_bpe import normalizer_of
from .ollama import modelfile

REPORT, CARD, MODELFILE = "export_report.json", "README.md", "Modelfile"

# Those whose version can change an artifact or what is measured on it.
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "optimum",
    "optimum-onnx",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-genai",
    "gguf",
    "llama-cpp-python",
    "numpy",
)


_COMPOSED = (
    "The tokenizer brings text into Unicode's NFC first. edgedc does that by itself; other programs that load the GGUF "
    "(Ollama, llama.cpp) do not, and read decomposed accents as other tokens: give them composed text."
)


def finish(folder: Path, manifest: Manifest) -> Manifest:
    """Write all three into a bundle that is complete but for them; return the manifest that is to be written last.

    It has gained the special ids and the hashes of the files beside the artifacts, for `edgedc doctor`. A bundle
    without a GGUF gets no Modelfile. Raises InputError when its tokenizer or template cannot be read.
    """
    manifest = dataclasses.replace(manifest, special_ids=read_special_ids(folder))
    reason = None
    (folder / MODELFILE).unlink(missing_ok=True)  # of an older bundle
    if artifact := _for_ollama(manifest):
        text, reason = _modelfile(folder, manifest, artifact)
        write_text(folder / MODELFILE, text)
    write_text(folder / REPORT, json.dumps(report(folder, manifest, reason), indent=2, ensure_ascii=False) + "\n")
    write_text(folder / CARD, model_card(manifest, normalizes=_normalizes(folder)))
    return dataclasses.replace(manifest, files=hashes_beside(folder, manifest.artifacts))


def report(folder: Path, manifest: Manifest, no_ollama_template: str | None = None) -> dict[str, Any]:
    """Every figure of an export, and what each tensor of a GGUF in `folder` really became, which fills pages.

    `no_ollama_template` says why the Modelfile has none.
    """
    return {
        "model": manifest.name,
        "base": manifest.base,
        "base_revision": manifest.base_revision,
        "method": manifest.method,
        "parameters": manifest.parameters,
        "context_length": manifest.context_length,
        "weights_sha256": manifest.weights_sha256,
        "chat_template_sha256": manifest.chat_template_sha256,
        "special_ids": dataclasses.asdict(manifest.special_ids) if manifest.special_ids else None,
        "ollama_template": no_ollama_template or "derived",
        "created": manifest.created,
        "edgedc": manifest.edgedc,
        "python": platform.python_version(),
        "packages": _versions(),
        "artifacts": [dataclasses.asdict(a) | _tensors(folder, a) for a in manifest.artifacts],
    }


def _tensors(folder: Path, artifact: Artifact) -> dict[str, Any]:
    if artifact.format != "gguf":
        return {}
    rows = [dataclasses.asdict(tensor) for tensor in read_tensors(folder / artifact.path)]
    return {"tensors": {row.pop("name"): row for row in rows}}


def _normalizes(folder: Path) -> bool:
    """Whether its tokenizer brings text into NFC first, as those of Qwen do."""
    tokenizer = folder / "tokenizer.json"
    return tokenizer.is_file() and {"type": "NFC"} in normalizer_of(read_object(tokenizer))


def model_card(manifest: Manifest, *, normalizes: bool = False) -> str:
    """README.md as the Hugging Face hub reads it: front matter, what the model is, the measured table.

    Format: https://huggingface.co/docs/hub/model-cards.
    """
    formats = sorted({artifact.format for artifact in manifest.artifacts})
    front = ["---"]
    if _is_hub_name(manifest.base) and not manifest.base_sha256:  # a folder's path may look like one
        front.append(f"base_model: {manifest.base}")
    if formats:
        front.append(f"library_name: {formats[0]}")
    front += ["pipeline_tag: text-generation", "tags:"]
    front += [f"- {tag}" for tag in (*formats, "question-decomposition", "edgedc")]
    cap = manifest.max_subquestions
    asked = "raw prompts, as it has no chat template" if manifest.chat_template_sha256 is None else "its chat template"
    facts = [
        f"- Base: {manifest.base}{f', revision {manifest.base_revision}' if manifest.base_revision else ''}",
        f"- Method: {manifest.method}",
        f"- Parameters: {manifest.parameters:,}; context: {manifest.context_length:,} tokens",
        f"- Asked with {asked}, prompt style {manifest.prompt_style}, "
        f"{'no limit on' if cap is None else f'at most {cap}'} subquestions",
        *(f"- Trained on {data.name}: {data.rows:,} rows, sha256 {data.sha256[:16]}…" for data in manifest.data),
    ]
    parts = [
        "\n".join([*front, "---", "", f"# {manifest.name}"]),
        "Breaks a question down into subquestions, on the device. Run it with `edgedc decompose --model .`; check it "
        "on another machine with `edgedc doctor .`.",
        "\n".join(facts),
        "## Compared with the model it was exported from",
        _table(manifest.artifacts),
        _how(manifest.artifacts),
        _COMPOSED if normalizes and "gguf" in formats else "",
        f"Made by edgedc {manifest.edgedc}, {manifest.created}. Every figure is in {REPORT}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(artifacts: Sequence[Artifact]) -> str:
    head = ("artifact", "type", "MB", "bits/weight", "same text", "same decomposition", "top-1", "KL (nats)", "gate")
    rows = [head, tuple(":-" if k in (0, 1, 8) else "-:" for k in range(len(head)))]
    for a in artifacts:
        rows.append(
            (
                f"`{a.path}`",
                a.quantization,
                f"{a.bytes / 1e6:.1f}",
                _figure(a.details.get("bits_per_weight"), ".2f"),
                *(_figure(a.gate.get(key), ".1%") for key in ("text", "decomposition", "top1")),
                _figure(a.gate.get("kl"), ".1e"),
                verdict(a) + (f": {', '.join(a.gate['failed'])}" if a.passed is False else ""),
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def verdict(artifact: Artifact) -> str:
    """In words, with the reason where there is none."""
    if artifact.passed is not None:
        return ("passed" if artifact.passed else "FAILED") + (" (on a CPU)" if artifact.gated_without_gpu else "")
    reason = artifact.details.get("not_gated")
    return f"not gated ({reason})" if reason else "not gated"


def _how(artifacts: Sequence[Artifact]) -> str:
    said = []
    if gate := next((a.gate for a in artifacts if a.gate), None):
        said.append(_compared(gate))
    if source := next((a.details["source"] for a in artifacts if "source" in a.details), None):
        kl = _figure(source["kl"], ".1e")
        said.append(f"Quantised GGUFs are made from an f16, which must pass as well (KL {kl}).")
    if ties := [f"{a.gate['near_ties']} of `{a.path}`" for a in artifacts if a.gate.get("near_ties")]:
        said.append(
            f"Where the model preferred its own token by at most {NEAR_TIE} nats, any rounding may turn a reply; such "
            f"replies do not count against the limits: {', '.join(ties)}."
        )
    if halves := sorted({a.gate.get("reference_dtype", "float32") for a in artifacts if a.gate} - {"float32"}):
        said.append(
            f"For want of memory the model was held in {', '.join(halves)}: no limit is tighter than that type's."
        )
    if any(a.gated_without_gpu for a in artifacts):
        said.append(
            "Graphs for CUDA were compared where there is no GPU, by the same operators on the CPU; on a machine with "
            "one `edgedc doctor` puts a question of the gate to them."
        )
    if any(a.details.get("not_gated") == "no GPU" for a in artifacts):
        said.append("Graphs for CUDA that no CPU can run were not compared with the model.")
    if any(a.details.get("not_gated") == "--no-gate" for a in artifacts):
        said.append("Artifacts made with `--no-gate` were not compared with the model.")
    return " ".join(said)


def _compared(gate: dict[str, Any]) -> str:
    return (
        f"On {gate['questions']} questions of the task, decoded greedily, and {gate['odd_strings']} strings that "
        f"tokenizers disagree about: rendered prompts, token ids, special tokens and template must be equal. Top-1 and "
        f"KL(model || artifact) are taken where the model's own replies are predicted, at {gate['positions']:,} "
        f"positions of {gate['scored']} questions."
    )


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _for_ollama(manifest: Manifest) -> Artifact | None:
    """The GGUF that edgedc itself would run: the smallest that did not fail; of failed ones none."""
    usable = [a for a in manifest.artifacts if a.format == "gguf" and a.passed is not False]
    return min(usable, key=lambda a: a.bytes, default=None)


def _modelfile(folder: Path, manifest: Manifest, artifact: Artifact) -> tuple[str, str | None]:
    chat = read_chat_template(folder) if manifest.chat_template_sha256 is not None else None
    special = read_special_ids(folder)
    texts = {number: text for text, number in token_ids(folder).items()}
    stops = [texts[end] for end in special.ends if end in texts]
    bos = first_token(folder) if special.adds_bos else None
    return modelfile(artifact.path, chat, stops, context_length=manifest.context_length, bos=bos)


def _is_hub_name(base: str) -> bool:
    """owner/name, and not the path of a folder."""
    owner, slash, name = base.partition("/")
    return bool(slash and owner.strip(".~") and name and "/" not in name)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
