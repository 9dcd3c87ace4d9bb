import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgedc.backends import choose, open_backend
from edgedc.backends.chat import ChatTemplate, read_chat_template
from edgedc.backends.grammar import ListGrammar
from edgedc.backends.llamacpp import LlamaCppBackend
from edgedc.backends.onnx import OnnxBackend
from edgedc.backends.reply import Reply
from edgedc.backends.scripted import ScriptedBackend
from edgedc.backends.transformers import TransformersBackend
from edgedc.bundle import check_model_folder, read_manifest
from edgedc.decomposition import parse
from edgedc.errors import ContextError, InputError
from edgedc.generation import Message
from edgedc.prompts import decompose_messages
from edgedc.tasks.microworld import problems


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def backends(model_folder, bundle_folder):
    """The reference, and the two artifacts that are to equal it, each on one thread."""
    opened = [TransformersBackend(model_folder)]
    opened += [open_backend(bundle_folder, format=f, quantization=q, threads=1)[1] for f, q in UNQUANTISED]
    yield opened
    for backend in opened:
        backend.close()


UNQUANTISED = (("gguf", "f16"), ("onnx", "fp32"))
ODD = [
    "",
    "   ",
    "  many    spaces\t\ttabs \n\n newlines \r\n and  ",
    "1234567890 3.14 1,000 $5.50 50%",
    "ünïcödé ñ 中文 日本語 العربية हिन्दी Å e\u0301 ﬁ",
    "🙂🚀👩‍👩‍👧",
    "don't I'LL we've",
    "a\u00a0b\u200bc\ufeffd",
    "nul \x00 and \x01",
    "a <|end|> in the text <|user|> <|assistant|>",
    "x" * 200,
]


@pytest.mark.parametrize("text", ODD)
def test_every_backend_reads_the_same_tokens(backends, text):
    reference, *others = (backend.encode(user(text)) for backend in backends)
    assert others == [reference, reference]


@pytest.mark.parametrize("text", ["é🙂 中文", "3 pens\n2. What?", "हिन्दी 👩‍👩‍👧"])
def test_characters_spread_over_tokens_come_back_whole(backends, text):
    for backend in backends:
        assert backend.text_of(backend.tokenize(text)) == text


def test_every_backend_says_the_same(backends):
    for problem in problems("train", 4):
        messages = decompose_messages(problem.question, style="compact-1", cap=5)
        made = [backend.generate(messages, max_tokens=100) for backend in backends]
        assert made[0].text.strip()
        assert [m.text for m in made] == [made[0].text] * 3
        assert len({m.finish_reason for m in made}) == 1
        assert len({(m.usage.input_tokens, m.usage.output_tokens) for m in made}) == 1


@pytest.mark.parametrize("text", ["é🙂 中文", "3 pens\n2. What?", "हिन्दी 👩‍👩‍👧", "a\ufffdb  c"])
def test_a_reply_comes_in_whole_characters_and_all_of_it(backends, text):
    for backend in backends:
        ids = backend.tokenize(text)
        pieces, reply = spelled(backend, ids)
        assert "".join(pieces) == reply.text == text
        assert len(pieces) > 3
        assert not any("\ufffd" in piece for piece in pieces if "\ufffd" not in text)


def test_a_character_that_never_ends_is_said_at_the_end(backends):
    for backend in backends:
        ids = backend.tokenize("a 🙂")
        for end in range(len(ids)):
            pieces, reply = spelled(backend, ids[:end])
            assert "".join(pieces) == reply.text == backend.text_of(ids[:end])
        assert reply.text.startswith("a ")


def spelled(backend, ids):
    """The pieces of a reply by a model that says these tokens, and the reply."""
    pieces = []
    reply = Reply(backend.text_of, frozenset([0]), 1, len(ids) + 1, None, pieces.append, 0.0)
    size = backend.logits([1], start=0).shape[1]
    for token in [*ids, 0]:
        reply.take(np.eye(1, size, token)[0])
    return pieces, reply.generation(cached=0)


@pytest.mark.parametrize("cap", [1, 2, None])
def test_every_backend_keeps_to_a_list(backends, cap):
    for problem in problems("train", 3):
        messages = decompose_messages(problem.question, style="compact-1", cap=5)
        pieces: list[list[str]] = [[], [], []]
        grammar = ListGrammar(cap)
        made = [
            backend.generate(messages, max_tokens=100, grammar=grammar, on_text=heard.append)
            for backend, heard in zip(backends, pieces, strict=True)
        ]
        assert [m.text for m in made] == ["".join(heard) for heard in pieces] == [made[0].text] * 3
        assert {m.finish_reason for m in made} == {"stop"}
        assert parse(made[0].text).status == "decomposed"
        assert not parse(made[0].text).exceeds(cap)


def test_many_requests_come_in_order_and_errors_in_their_places(backends):
    asked = [decompose_messages(p.question, style="compact-1", cap=5) for p in problems("train", 3)]
    asked.insert(1, user("word " * backends[0].context_length))
    for backend in backends:
        made = list(backend.generate_many(iter(asked), max_tokens=60))
        assert isinstance(made.pop(1), ContextError)
        assert [m.text for m in made] == [backend.generate(m, max_tokens=60).text for m in asked if m != asked[1]]


def test_a_reply_is_measured_and_says_why_it_stopped(backends):
    messages = decompose_messages(next(iter(problems("train", 1))).question, style="compact-1", cap=5)
    for backend in backends:
        cut = backend.generate(messages, max_tokens=2)
        assert (cut.finish_reason, cut.usage.output_tokens, cut.usage.source) == ("length", 2, "tokenizer")
        assert cut.usage.input_tokens == len(backend.encode(messages))
        assert cut.first_token_s is not None
        assert 0 < cut.first_token_s <= cut.total_s
        assert cut.bytes_sent == 0


def test_a_prompt_that_does_not_fit_is_refused_whole(backends):
    for backend in backends:
        messages = user("word " * backend.context_length)
        prompt = len(backend.encode(messages))
        with pytest.raises(ContextError, match=rf"{prompt} tokens.*may have 7.*{backend.context_length}"):
            backend.generate(messages, max_tokens=7)


def test_llamacpp_reuses_the_last_prompt_and_says_the_same(bundle_folder):
    _, backend = open_backend(bundle_folder, format="gguf", quantization="f16", threads=1)
    first, second = (decompose_messages(p.question, style="compact-1", cap=5) for p in problems("train", 2))
    cold = backend.generate(first, max_tokens=60)
    other = backend.generate(second, max_tokens=60)
    again = backend.generate(first, max_tokens=60)
    same = backend.generate(first, max_tokens=60)
    backend.close()
    assert cold.text == again.text == same.text
    assert cold.usage.cached_tokens == 0
    assert 0 < other.usage.cached_tokens < other.usage.input_tokens
    assert same.usage.cached_tokens == same.usage.input_tokens - 1


# -- chat templates

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = [
    CHATML,
    "{{ bos_token }}{% for m in messages %}\n  {% if m.role == 'user' %}\n[INST] {{ m.content | trim }} [/INST]\n"
    "  {% endif %}\n{% endfor %}\n",
    "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m | tojson }}{% endfor %}",
    "{% for m in messages %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% endfor %}",
    "{{ strftime_now('%Y') }}{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
    "{{ ns.n }}{{ messages[-1].content }}"
    "{% if tools is none %} no tools{% endif %}{% if unk_token is defined %}!{% endif %}",
    "{{ messages[0]['content'] | tojson(indent=2) }}{{ {'b': 1, 'a': '<é>'} | tojson(sort_keys=true) }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_render_as_transformers_renders_them(backends, template):
    tokenizer = backends[0]._tokenizer
    tokens = {name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    messages: list[Message] = [
        {"role": "system", "content": 'Be <brief> & "kind".\n'},
        {"role": "user", "content": "  Was kostet ein Stift? 🙂\n"},
    ]
    expected = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert ChatTemplate(template, tokens, "test").render(messages) == expected


def test_the_bundle_renders_as_the_model_does(backends, bundle_folder):
    for text in ODD:
        assert read_chat_template(bundle_folder).render(user(text)) == backends[0].render(user(text))


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[0].content + 3 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ 1 // 0 }}",
        "{{ nothing.here }}",
    ],
)
def test_a_template_that_raises_is_the_users_error(template):
    with pytest.raises(InputError, match=r"here\.jinja: the chat template refused"):
        ChatTemplate(template, {}, "here.jinja").render(user("hello"))


def test_a_template_that_cannot_be_read_is_named():
    with pytest.raises(InputError, match=r"here\.jinja: not a chat template"):
        ChatTemplate("{% for %}", {}, "here.jinja")


def test_half_a_character_is_refused(backends):
    for backend in backends:
        with pytest.raises(InputError, match="lone surrogate"):
            backend.encode(user("broken \ud83d here"))


# -- which model runs


def test_a_bundle_gives_its_smallest_artifact(bundle_folder):
    manifest = read_manifest(bundle_folder)
    smallest = min(manifest.artifacts, key=lambda a: a.bytes)
    opened, backend = open_backend(bundle_folder)
    assert opened == manifest
    assert backend.name == f"llama.cpp {smallest.quantization}"
    backend.close()


def test_without_llamacpp_a_bundle_runs_on_onnx_and_says_so(bundle_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    _, backend = open_backend(bundle_folder)
    assert backend.name == "onnxruntime fp32 (llama_cpp is not installed)"
    backend.close()


def test_a_llamacpp_that_does_not_load_is_one_line(bundle_folder, tmp_path):
    """As one that was built for another machine."""
    (tmp_path / "llama_cpp.py").write_text("raise RuntimeError('GLIBC_9.99 not found')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from edgedc.cli import main; main()"
    command = [sys.executable, "-c", code, "decompose", "--model", bundle_folder, "--backend", "llamacpp", "Why?"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = "edgedc: llama-cpp-python is installed and does not load: GLIBC_9.99 not found: install it again\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_a_model_folder_runs_on_transformers(model_folder):
    manifest, backend = open_backend(model_folder)
    assert (manifest.kind, backend.name) == ("model", "transformers fp32")
    with pytest.raises(InputError, match="edgedc export"):
        open_backend(model_folder, format="gguf")


def test_a_folder_without_manifest_is_an_untrained_decomposer(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "base")
    (folder / "manifest.json").unlink()
    chosen = choose(folder).manifest
    assert (chosen.name, chosen.method, chosen.prompt_style) == ("base", "untrained", "instruct-1")


def test_paths_that_hold_no_model_are_named(bundle_folder, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        open_backend(tmp_path / "absent")
    with pytest.raises(InputError, match="a file"):
        open_backend(bundle_folder / "manifest.json")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="edgedc merge"):
        open_backend(tmp_path)
    with pytest.raises(InputError, match="holds gguf"):
        open_backend(bundle_folder, quantization="q3_k_s")


def test_an_artifact_that_changed_is_refused(bundle_folder, tmp_path):
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    path = next(folder.glob("*f16.gguf"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="changed since it was exported"):
        open_backend(folder, format="gguf", quantization="f16")


def test_damaged_gguf_files_are_explained(bundle_folder, tmp_path):
    whole = next(bundle_folder.glob("*f16.gguf")).read_bytes()
    for content, reason in (
        (b"hello", "not a GGUF"),
        (b"GGUF", "cut short"),
        (b"GGUF" + b"garbage " * 9, "not a GGUF that can be loaded: version"),
        (whole[:5000], "not a GGUF that can be loaded: it is cut short"),
        (whole[:-5000], "not a GGUF that can be loaded: it is cut short"),
        (whole[:-100], "llama.cpp cannot load it: .*not within the file bounds"),
    ):
        path = tmp_path / "damaged.gguf"
        path.write_bytes(content)
        with pytest.raises(InputError, match=reason):
            LlamaCppBackend(path)
    with pytest.raises(InputError, match="no such file"):
        LlamaCppBackend(tmp_path / "absent.gguf")


def test_a_gguf_alone_brings_its_template(bundle_folder, tmp_path):
    alone = shutil.copy(next(bundle_folder.glob("*f16.gguf")), tmp_path)
    backend = LlamaCppBackend(Path(alone))
    assert backend.render(user("hi")) == read_chat_template(bundle_folder).render(user("hi"))
    backend.close()


def test_damaged_onnx_files_are_explained(bundle_folder, tmp_path):
    whole = (bundle_folder / "onnx" / "model.onnx").read_bytes()
    path = tmp_path / "damaged.onnx"
    for content in (b"", b"hello", whole[:5000]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="onnxruntime cannot load it"):
            OnnxBackend(path, bundle_folder)
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        OnnxBackend(folder / "onnx" / "model.onnx", folder)


def _edit(folder: Path, name: str, **changes: object) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "pytorch_model.bin").write_bytes(b"pickle"), "pickled weights"),
        (lambda f: (f / "model.safetensors").unlink(), "weights are missing"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda f: (f / "config.json").unlink(), r"no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: _edit(f, "config.json", auto_map={"AutoModel": "code.Model"}), "auto_map"),
        (lambda f: _edit(f, "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.T", None]}), "auto_map"),
        (
            lambda f: _edit(f, "config.json", text_config=[{"deep": {"_attn_implementation_internal": "who/kernel"}}]),
            "_attn_implementation_internal",
        ),
        (
            lambda f: _edit(f, "config.json", num_hidden_layers=1),
            r"num_hidden_layers 1, .* model\.layers\.1\..* left out",
        ),
    ],
)
def test_a_folder_that_could_run_code_or_is_not_whole_is_refused(model_folder, tmp_path, damage, reason):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    check_model_folder(folder)
    damage(folder)
    with pytest.raises(InputError, match=reason):
        check_model_folder(folder)


@pytest.mark.parametrize(
    ("config", "more"),
    [
        ({}, ["lm_head.weight", "model.layers.1.self_attn.rotary_emb.inv_freq", "vision_tower.layers.26.mlp.weight"]),
        ({"num_nextn_predict_layers": 1}, ["model.layers.2.eh_proj.weight"]),  # as DeepSeek's
        ({}, ["mtp.layers.9.mlp.weight", "model.mtp.layers.9.mlp.weight"]),
    ],
)
def test_weights_that_are_no_layers_of_the_decoder_may_be_there(model_folder, tmp_path, config, more):
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    _edit(folder, "config.json", **config)
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {name: np.zeros(4, np.float32) for name in more}, folder / "model.safetensors")
    check_model_folder(folder)


def test_pickled_weights_are_refused_before_torch_is_loaded(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    code = (
        "import sys; from pathlib import Path; from edgedc.errors import InputError\n"
        "from edgedc.backends.transformers import TransformersBackend\n"
        "try: TransformersBackend(Path(sys.argv[1]))\n"
        "except InputError as error: print(error, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "pickled weights" in done.stdout
    assert done.stdout.strip().endswith("False")


def test_damaged_weights_are_the_users_error(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="transformers cannot load it"):
        TransformersBackend(folder)
    (folder / "model.safetensors").write_bytes(whole)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"cannot load it: its weights lack model\.norm\.weight: copy"):
        TransformersBackend(folder)


def test_scripted_replies_come_in_turn_and_are_cut_like_real_ones():
    backend = ScriptedBackend(["1. Who?", "one two three four"], context=50)
    assert backend.generate(user("a b c"), max_tokens=9).text == "1. Who?"
    cut = backend.generate(user("a b c"), max_tokens=2)
    assert (cut.text, cut.finish_reason, cut.usage.input_tokens) == ("one two", "length", 3)
    assert [m[0]["content"] for m in backend.asked] == ["a b c", "a b c"]
    pieces: list[str] = []
    assert ScriptedBackend(["1. Who?\n2. When?"]).generate(user("a"), max_tokens=9, on_text=pieces.append).text
    assert pieces == ["1.", " Who?", "\n2.", " When?"]
    with pytest.raises(ContextError):
        backend.generate(user("word " * 49), max_tokens=2)
