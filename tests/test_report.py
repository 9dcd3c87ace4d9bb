"""The papers of a bundle: the report, the model card, and the Modelfile, whose template gives what the model's does."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgedc.backends.chat import ChatTemplate
from edgedc.bundle import Artifact, Manifest, read_manifest
from edgedc.generation import Message
from export.ollama import modelfile, pieces_of
from export.report import finish, model_card, report

CHATML = "'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
DEFAULT = (
    "{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
)
# the shapes of real models' templates: their own words
PLAIN = {
    "tiny": "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}<|assistant|>\n",
    "chatml": f"{{% for message in messages %}}{{{{ {CHATML} }}}}{{% endfor %}}{PROMPT}",
    "default system": f"{{% for message in messages %}}{DEFAULT}{{{{ {CHATML} }}}}{{% endfor %}}{PROMPT}",
    "no system": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('none') }}{% endif %}"
    "{% for m in messages %}{{ '<turn>' + m['role'] + '\n' + m['content'] + '<end>\n' }}{% endfor %}<turn>model\n",
    "brackets": "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' ' + eos_token }}{% else %}"
    "{{ '<<SYS>>' + m['content'] }}{% endif %}{% endfor %}",
    "llama 3": "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "zephyr": "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<|user|>\n' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}"
    "{{ '<|system|>\n' + message['content'] + eos_token }}{% elif message['role'] == 'assistant' %}"
    "{{ '<|assistant|>\n' + message['content'] + eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    "quotes": "{% for m in messages %}{{ m['role'] + ': \"' + m['content'] + '\"\n' }}{% endfor %}assistant: ",
    "one brace": "{% for m in messages %}{{ m['role'] + '={' + m['content'] + '}\n' }}{% endfor %}assistant={",
    "three braces": "{% for m in messages %}{{ '{{{' + m['role'] + '}}} {{{' + m['content'] + '}}}\n' }}{% endfor %}>",
    "braces": "{% for m in messages %}{{ '{{' + m['role'] + '}} ' + m['content'] + '\n' }}{% endfor %}"
    "{{ '{{assistant}} ' }}",
}
BRANCHING = {
    "by content": "{% for m in messages %}{{ 'Q' if '?' in m['content'] else 'S' }}{{ m['content'] }}{% endfor %}A:",
    "the last": "{% for m in messages %}{{ '[LAST]' if loop.last else '' }}{{ m['content'] }}\n{% endfor %}A:",
    "drops replies": "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}\n{% endfor %}A:",
    "the date": "{{ strftime_now('%d') }}{% for m in messages %}{{ m['content'] }}\n{% endfor %}A:",
    "three quotes": '{% for m in messages %}{{ m[\'role\'] }}: """{{ m[\'content\'] }}"""\n{% endfor %}A:',
    "a quote at the end": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}A: \"",
    "invisible": "{% for m in messages %}{{ m['role'] }}:\u00a0{{ m['content'] }}\n{% endfor %}A:",
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TALK: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How many {{ apples }}?"},
    {"role": "assistant", "content": "1. How many?"},
    {"role": "user", "content": "And pears?"},
]


def chat(template: str) -> ChatTemplate:
    return ChatTemplate(template, TOKENS, "here")


def probes(name: str) -> list[list[Message]]:
    return [TALK[1:2], TALK[1:], *([] if name in ("no system", "gemma") else [TALK[:2], TALK])]


def go_template(name: str, bos: str | None = None) -> str:
    text, reason = modelfile("q8_0.gguf", chat(PLAIN[name]), ["<|end|>"], context_length=512, bos=bos)
    assert reason is None
    (template,) = re.findall(r'TEMPLATE """(.*?)"""', text, re.DOTALL)
    return str(template)


@pytest.mark.parametrize("name", PLAIN)
def test_what_stands_around_messages_is_found(name: str) -> None:
    for messages in probes(name):
        assert pieces_of(chat(PLAIN[name])).render(messages) == chat(PLAIN[name]).render(messages)


def test_a_go_template_is_made_of_it() -> None:
    """What Go makes of these is tested below, where Go is."""
    turns = '{{ range .Messages }}{{ if eq .Role "user" }}%s{{ else if eq .Role "assistant" }}%s{{ end }}{{ end }}'
    assert go_template("tiny") == (
        "{{ if .System }}<|system|>\n{{ .System }}<|end|>\n{{ else }}{{ end }}"
        + turns % ("<|user|>\n{{ .Content }}<|end|>\n<|assistant|>", "\n{{ .Content }}<|end|>\n")
    )
    bracketed = turns % ("[INST] {{ .Content }} [/INST]", " {{ .Content }} </s><s>")
    told = "{{ if .System }}<<SYS>>{{ .System }}<s>{{ else }}%s{{ end }}"
    assert go_template("brackets") == told % "<s>" + bracketed
    assert go_template("brackets", "<s>") == told % "" + bracketed
    assert 'user={{ "{" }}{{ .Content }}}' in go_template("one brace")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="Go's own text/template needs go: apt install golang-go")
def test_go_itself_gives_what_the_chat_template_gives(tmp_path: Path) -> None:
    """Ollama is written in Go; compiling the few lines that stand in for it takes seconds."""
    program = Path(__file__).parent / "ollama" / "main.go"
    places = {"GOCACHE": str(tmp_path / "cache"), "GOPATH": str(tmp_path / "go"), "GOFLAGS": "", "GO111MODULE": "off"}
    jobs, expected = [], []
    for name, text in PLAIN.items():
        for bos in (None, TOKENS["bos_token"]):
            template = go_template(name, bos)
            for messages in probes(name):
                jobs.append({"template": template, "messages": messages})
                expected.append(chat(text).render(messages).removeprefix(bos or ""))
    said, _ = modelfile("x.gguf", None, [], context_length=512, bos=None)
    jobs += [{"template": raw, "messages": TALK[1:2]} for raw in re.findall(r'TEMPLATE """(.*?)"""', said, re.DOTALL)]
    expected.append(TALK[1]["content"] + "\n")
    done = subprocess.run(
        ["go", "run", str(program)], input=json.dumps(jobs), env=os.environ | places, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    results = json.loads(done.stdout)
    assert [row["error"] for row in results] == [""] * len(jobs)
    assert [row["text"] for row in results] == expected


def test_the_modelfile_decodes_as_the_gate_did() -> None:
    text, _ = modelfile("x-q8_0.gguf", chat(PLAIN["tiny"]), ["<|end|>", "</s>"], context_length=512, bos=None)
    lines = text.splitlines()
    assert lines[0] == "FROM ./x-q8_0.gguf"
    assert lines[-5:] == [
        'PARAMETER stop """<|end|>"""',
        'PARAMETER stop """</s>"""',
        "PARAMETER num_ctx 512",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]


def test_a_bos_that_the_engine_writes_is_not_written_twice() -> None:
    text, _ = modelfile("x.gguf", chat(PLAIN["no system"]), [], context_length=512, bos="<s>")
    assert "<s>" not in text
    text, _ = modelfile("x.gguf", chat(PLAIN["no system"]), [], context_length=512, bos=None)
    assert 'TEMPLATE """<s>' in text


def test_a_bos_that_only_the_engine_writes_is_said() -> None:
    """As for models that were trained without one by a tokenizer that adds it."""
    said = "# Ollama puts <s> before every prompt, which the chat template does not."
    for name, extra in (("tiny", True), ("brackets", True), ("no system", False), ("llama 3", False)):
        text, _ = modelfile("x.gguf", chat(PLAIN[name]), [], context_length=512, bos="<s>")
        assert (said in text) == extra, name
        assert said not in modelfile("x.gguf", chat(PLAIN[name]), [], context_length=512, bos=None)[0]


@pytest.mark.parametrize("name", BRANCHING)
def test_a_template_that_branches_is_said_and_not_guessed(name: str) -> None:
    text, reason = modelfile("x.gguf", chat(BRANCHING[name]), ["</s>"], context_length=512, bos=None)
    assert reason is not None
    assert 'TEMPLATE "' not in text
    assert f"# No TEMPLATE: {reason}." in text
    assert 'PARAMETER stop """</s>"""' in text


def test_stripped_white_space_is_said() -> None:
    stripping = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>{% endfor %}<|assistant|>"
    text, reason = modelfile("x.gguf", chat(stripping), [], context_length=512, bos=None)
    assert reason is None
    assert "strips white space" in text


def test_a_model_without_a_template_goes_on_from_the_text() -> None:
    text, reason = modelfile("x.gguf", None, [], context_length=512, bos=None)
    assert reason is None
    assert 'TEMPLATE """{{ .Prompt }}\n"""' in text


GATE = {"questions": 64, "odd_strings": 50, "scored": 64, "positions": 2103, "text": 0.96875, "decomposition": 0.984375}
MANIFEST = Manifest(
    kind="bundle",
    name="student",
    base="HuggingFaceTB/SmolLM2-135M",
    method="S_D-R",
    parameters=134_515_008,
    context_length=2048,
    chat_template_sha256="ab" * 32,
    artifacts=(
        Artifact(
            ("student-q8_0.gguf",),
            "gguf",
            "q8_0",
            144_000_000,
            ("cd" * 32,),
            passed=True,
            gate=GATE | {"top1": 0.999, "kl": 3.9e-5, "failed": []},
            details={"bits_per_weight": 8.53},
        ),
        Artifact(
            ("student-q2_k.gguf",),
            "gguf",
            "q2_k",
            60_000_000,
            ("ef" * 32,),
            passed=False,
            gate=GATE | {"top1": 0.8, "kl": None, "failed": ["top1", "kl"]},
        ),
        Artifact(
            ("onnx-int4-cuda/model.onnx",),
            "onnx",
            "int4-cuda",
            600_000_000,
            ("01" * 32,),
            details={"not_gated": "no GPU", "provider": "cuda"},
        ),
        Artifact(
            ("onnx-fp16-cuda/model.onnx",),
            "onnx",
            "fp16-cuda",
            600_000_000,
            ("01" * 32,),
            passed=True,
            gate=GATE | {"top1": 0.999, "kl": 3.9e-5, "ran_on": "cpu"},
            details={"provider": "cuda"},
        ),
        Artifact(("onnx/model.onnx",), "onnx", "fp32", 600_000_000, ("01" * 32,), details={"not_gated": "--no-gate"}),
    ),
)


def test_the_card_has_front_matter_and_every_artifact_with_its_figures() -> None:
    card = model_card(MANIFEST)
    front = card.split("---")[1].strip().splitlines()
    assert "base_model: HuggingFaceTB/SmolLM2-135M" in front
    assert "base_model: " not in model_card(dataclasses.replace(MANIFEST, base="build/base", base_sha256="01" * 32))
    assert "library_name: gguf" in front
    assert "- onnx" in front
    rows = [line for line in card.splitlines() if line.startswith("| `")]
    assert rows == [
        "| `student-q8_0.gguf` | q8_0 | 144.0 | 8.53 | 96.9% | 98.4% | 99.9% | 3.9e-05 | passed |",
        "| `student-q2_k.gguf` | q2_k | 60.0 | - | 96.9% | 98.4% | 80.0% | - | FAILED: top1, kl |",
        "| `onnx-int4-cuda/model.onnx` | int4-cuda | 600.0 | - | - | - | - | - | not gated (no GPU) |",
        "| `onnx-fp16-cuda/model.onnx` | fp16-cuda | 600.0 | - | 96.9% | 98.4% | 99.9% | 3.9e-05 | passed (on a CPU) |",
        "| `onnx/model.onnx` | fp32 | 600.0 | - | - | - | - | - | not gated (--no-gate) |",
    ]
    assert "Graphs for CUDA that no CPU can run were not compared with the model." in card
    assert "Graphs for CUDA were compared where there is no GPU, by the same operators on the CPU" in card
    assert "Artifacts made with `--no-gate` were not compared" in card
    halved = dataclasses.replace(
        MANIFEST.artifacts[0], gate=MANIFEST.artifacts[0].gate | {"reference_dtype": "bfloat16"}
    )
    said = "For want of memory the model was held in bfloat16"
    assert said not in card
    assert said in model_card(dataclasses.replace(MANIFEST, artifacts=(halved,)))
    assert "2,103 positions of 64 questions" in card


@pytest.mark.parametrize("base", ["/home/me/model", "../base", "nano from scratch", "./a", "~/base"])
def test_a_base_that_is_no_hub_name_is_not_linked(base: str) -> None:
    assert "base_model" not in model_card(dataclasses.replace(MANIFEST, base=base))


def test_what_was_not_measured_is_said() -> None:
    bare = dataclasses.replace(MANIFEST, artifacts=MANIFEST.artifacts[-1:], chat_template_sha256=None)
    card = model_card(bare)
    assert "--no-gate" in card
    assert "CUDA" not in card
    assert "raw prompts" in card


def test_the_report_has_every_figure_and_the_versions(bundle_folder: Path) -> None:
    row = json.loads(json.dumps(report(bundle_folder, read_manifest(bundle_folder)), allow_nan=False))
    assert row["packages"]["numpy"]
    gguf = next(artifact for artifact in row["artifacts"] if artifact["quantization"] == "q8_0")
    assert gguf["bytes"] == (bundle_folder / gguf["files"][0]).stat().st_size
    assert gguf["tensors"]["token_embd.weight"] == {"type": "q8_0", "shape": [256, 512], "bits_per_weight": 8.5}
    assert gguf["tensors"]["output_norm.weight"]["type"] == "f32"
    assert "tensors" not in gguf["details"]  # the manifest, which is read at every start, does without


def test_a_finished_bundle_has_its_papers_and_their_hashes(bundle_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    made = finish(folder, read_manifest(folder))
    names = {"export_report.json", "README.md", "Modelfile", "tokenizer.json", "chat_template.jinja", "config.json"}
    assert names <= set(made.files)
    assert not {"manifest.json", *(file for a in made.artifacts for file in a.files)} & set(made.files)
    assert made.special_ids is not None
    said = (folder / "Modelfile").read_text("utf-8")
    smallest = min((a for a in made.artifacts if a.format == "gguf"), key=lambda a: a.bytes)
    assert f"FROM ./{smallest.path}" in said
    assert "TEMPLATE" in said
    assert json.loads((folder / "export_report.json").read_text("utf-8"))["ollama_template"] == "derived"
    without = dataclasses.replace(made, artifacts=tuple(a for a in made.artifacts if a.format == "onnx"))
    assert "Modelfile" not in finish(folder, without).files
    assert not (folder / "Modelfile").exists()
