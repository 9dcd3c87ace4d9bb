"""Many prompts at once, one after the other, in pieces and held to a list: llama.cpp says the same."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest
from test_adapter import LINEAR, SMALL, make_adapter
from test_export import make_model

from edgedc.backends import open_backend
from edgedc.backends.cores import FreeCores
from edgedc.backends.grammar import ListGrammar
from edgedc.backends.llamacpp import LlamaCppBackend
from edgedc.decomposition import parse
from edgedc.errors import ContextError, InputError
from edgedc.generation import Generation, Message, Request
from edgedc.prompts import decompose_messages
from edgedc.tasks.microworld import problems


def questions(count: int) -> list[list[Message]]:
    return [decompose_messages(p.question, style="compact-1", cap=5) for p in problems("train", count)]


@pytest.fixture(scope="module")
def backend(bundle_folder: Path) -> Iterator[LlamaCppBackend]:
    _, opened = open_backend(bundle_folder, format="gguf", quantization="f16", threads=1)
    assert isinstance(opened, LlamaCppBackend)
    yield opened
    opened.close()


def constant(backend: LlamaCppBackend) -> int:
    """Tokens that all questions begin with."""
    prompts = [backend.encode(messages) for messages in questions(40)]
    return next(k for k, column in enumerate(zip(*prompts, strict=False)) if len(set(column)) > 1)


# -- the constant part of the prompt


def test_the_constant_part_is_evaluated_once_for_all_questions(bundle_folder: Path) -> None:
    _, backend = open_backend(bundle_folder, format="gguf", quantization="f16", threads=1)
    assert isinstance(backend, LlamaCppBackend)
    prefix, asked = constant(backend), questions(12)
    assert prefix > 10
    made = [backend.generate(messages, max_tokens=20) for messages in [*asked[:3], *asked[:3]]]
    many = [m for m in backend.generate_many(asked, max_tokens=20) if isinstance(m, Generation)]
    after = backend.generate(asked[1], max_tokens=20)
    backend.close()
    assert made[0].usage.cached_tokens == 0
    assert all(m.usage.cached_tokens >= prefix for m in (*made[1:], *many[1:], after))
    assert [m.text for m in made[:3]] == [m.text for m in made[3:]]


def test_what_was_evaluated_changes_no_reply(backend: LlamaCppBackend) -> None:
    first, second, *_ = questions(2)
    alone = backend.generate(first, max_tokens=60).text
    backend.generate(second, max_tokens=60)
    backend.logits(backend.encode(second)[:9], start=0)
    list(backend.generate_many(questions(20), max_tokens=5))
    assert backend.generate(first, max_tokens=60).text == alone
    rows = backend.logits(backend.encode(first), start=0)
    assert rows.shape == (len(backend.encode(first)), rows.shape[1])
    assert rows[-1].argmax() == backend.logits(backend.encode(first), start=len(rows) - 1)[0].argmax()


# -- many questions


def test_many_at_once_say_what_each_says_alone_in_order(backend: LlamaCppBackend) -> None:
    asked = questions(24)
    alone = [backend.generate(messages, max_tokens=80) for messages in asked]
    many = list(backend.generate_many(iter(asked), max_tokens=80))
    assert len({m.text for m in alone}) > 20
    assert len({m.usage.output_tokens for m in alone}) > 5  # they end at different times
    for one, made in zip(alone, many, strict=True):
        assert isinstance(made, Generation)
        assert (made.text, made.finish_reason) == (one.text, one.finish_reason)
        assert made.usage.output_tokens == one.usage.output_tokens
        assert made.usage.input_tokens == one.usage.input_tokens
        assert made.first_token_s is not None
        assert 0 < made.first_token_s <= made.total_s


def test_what_many_at_once_left_is_not_passed_by_one_alone(backend: LlamaCppBackend) -> None:
    """A pool that was never given up between them, as in `edgedc serve`."""
    asked = questions(12)
    context = backend._context
    assert context is not None
    alone = backend.generate(asked[0], max_tokens=12).text
    list(backend.generate_as_they_come(Request(messages, 12) for messages in asked))
    held = [len(known) for known in context._known]
    assert sum(held) > 2 * max(held)
    assert backend.generate(asked[0], max_tokens=12).text == alone
    ids = backend.encode(asked[0])
    others = context._known[1:]
    assert all(known == ids[: len(known)] for known in others)
    assert any(others)  # what they have in common with it stays


def test_a_request_that_cannot_be_done_gives_its_error_in_its_place(backend: LlamaCppBackend) -> None:
    asked = questions(5)
    asked[1] = decompose_messages("word " * backend.context_length, style="compact-1", cap=5)
    asked[3] = decompose_messages("half a \ud83d", style="compact-1", cap=5)
    made = list(backend.generate_many(asked, max_tokens=40))
    assert isinstance(made[1], ContextError)
    assert "--max-tokens" in str(made[1])
    assert isinstance(made[3], InputError)
    texts = [m.text for m in made if isinstance(m, Generation)]
    assert texts == [backend.generate(asked[k], max_tokens=40).text for k in (0, 2, 4)]
    assert list(backend.generate_many([], max_tokens=40)) == []
    assert [type(m) for m in backend.generate_many([asked[1]], max_tokens=40)] == [ContextError]


def test_requests_are_taken_a_few_ahead_and_the_rest_may_be_left(backend: LlamaCppBackend) -> None:
    taken = 0

    def endless() -> Iterator[list[Message]]:
        nonlocal taken
        for taken, messages in enumerate(itertools.cycle(questions(7)), start=1):  # noqa: B007
            yield messages

    results = backend.generate_many(endless(), max_tokens=3)
    for given in range(1, 200):
        assert isinstance(next(results), Generation)
        assert taken - given <= 64
    with pytest.raises(RuntimeError, match="in the middle of generate_many"):
        backend.generate(questions(1)[0], max_tokens=3)
    results.close()
    assert backend.generate(questions(1)[0], max_tokens=3).usage.output_tokens == 3


def test_long_prompts_wait_for_room_and_keep_their_place(tmp_path: Path) -> None:
    backend = random_backend(tmp_path, max_position_embeddings=2048)
    lengths = [5, 100, 3, 600, 8, 8, 300, 600, 2, 4] + [6] * 12
    asked = [[Message(role="user", content="a b " * length)] for length in lengths]
    many = [m for m in backend.generate_many(asked, max_tokens=4) if isinstance(m, Generation)]
    assert [m.usage.input_tokens for m in many] == [len(backend.encode(messages)) for messages in asked]
    for k in (1, 3, 6, 9):
        assert many[k].text == backend.generate(asked[k], max_tokens=4).text
    backend.close()


def test_prompts_of_about_one_length_make_way_for_longer_ones(tmp_path: Path) -> None:
    backend = random_backend(tmp_path, max_position_embeddings=2048)
    lengths = [*range(60, 80), 300, *range(70, 90), 500, 501, *range(60, 64)]
    asked = [[Message(role="user", content="b a " * length)] for length in lengths]
    many = [m for m in backend.generate_many(asked, max_tokens=4) if isinstance(m, Generation)]
    assert [m.usage.input_tokens for m in many] == [len(backend.encode(messages)) for messages in asked]
    for k in (0, 17, 20, 25, 41, 42, 46):
        assert many[k].text == backend.generate(asked[k], max_tokens=4).text
    again = [m for m in backend.generate_many(asked, max_tokens=4) if isinstance(m, Generation)]
    assert [m.text for m in again] == [m.text for m in many]
    backend.close()


def test_a_prompt_may_be_longer_than_what_is_asked_for_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedc.backends.llamacpp._COMMON", 1)
    backend = random_backend(tmp_path, max_position_embeddings=2048)
    asked = [[Message(role="user", content="a b " * length)] for length in (400, 3, 500)]
    made = dict(backend.generate_as_they_come(Request(messages, 4) for messages in asked))
    for k, messages in enumerate(asked):
        reply = made[k]
        assert isinstance(reply, Generation)
        assert reply.usage.input_tokens == len(backend.encode(messages))
        assert reply.text == backend.generate(messages, max_tokens=4).text
    assert max(len(backend.encode(messages)) for messages in asked) > 1024
    backend.close()


# -- in pieces, and held to a list


def test_pieces_come_as_the_reply_grows_and_are_the_text(backend: LlamaCppBackend) -> None:
    for messages in questions(4):
        pieces: list[str] = []
        made = backend.generate(messages, max_tokens=80, on_text=pieces.append)
        assert "".join(pieces) == made.text
        assert len(pieces) > 5
        pieces.clear()
        held = backend.generate(messages, max_tokens=80, on_text=pieces.append, grammar=ListGrammar(5))
        assert "".join(pieces) == held.text == made.text


def test_what_hears_the_pieces_may_end_the_call(backend: LlamaCppBackend) -> None:
    def stop(piece: str) -> None:
        raise KeyboardInterrupt(piece)

    with pytest.raises(KeyboardInterrupt):
        backend.generate(questions(1)[0], max_tokens=80, on_text=stop)
    assert backend.generate(questions(1)[0], max_tokens=80).text


def test_a_list_ends_at_its_cap_where_the_model_would_go_on(backend: LlamaCppBackend) -> None:
    for messages in questions(6):
        free = backend.generate(messages, max_tokens=120)
        lines = free.text.split("\n")
        assert len(lines) > 1
        for cap in (1, len(lines) - 1):
            held = backend.generate(messages, max_tokens=120, grammar=ListGrammar(cap))
            assert (held.text, held.finish_reason) == ("\n".join(lines[:cap]), "stop")
            assert held.usage.output_tokens < free.usage.output_tokens
        many = list(backend.generate_many([messages] * 3, max_tokens=120, grammar=ListGrammar(1)))
        assert [m.text for m in many if isinstance(m, Generation)] == [lines[0]] * 3


@pytest.mark.parametrize("cap", [1, 3, None])
def test_even_a_model_that_knows_nothing_writes_a_list(tmp_path: Path, cap: int | None) -> None:
    backend = random_backend(tmp_path)
    for word in ("pens", "boxes", "x"):
        pieces: list[str] = []
        messages: list[Message] = [{"role": "user", "content": f"How many {word}?"}]
        held = backend.generate(messages, max_tokens=40, grammar=ListGrammar(cap), on_text=pieces.append)
        made = parse(held.text)
        assert made.status != "unparsed"
        assert not made.exceeds(cap)
        assert "".join(pieces) == held.text
        assert held.text.startswith(("1. ", "No decomposition"))
    backend.close()


# -- adapters


def test_an_adapter_that_cannot_be_added_is_named(tmp_path: Path, bundle_folder: Path) -> None:
    model = next(bundle_folder.glob("*f16.gguf"))
    with pytest.raises(InputError, match=r"absent\.gguf: no such file"):
        LlamaCppBackend(model, adapter=tmp_path / "absent.gguf")
    with pytest.raises(InputError, match="a LoRA adapter was wanted"):
        LlamaCppBackend(model, adapter=model)
    (tmp_path / "short.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match="cut short"):
        LlamaCppBackend(model, adapter=tmp_path / "short.gguf")
    other = adapter_gguf(tmp_path)
    with pytest.raises(InputError, match=r"adapter\.gguf: llama.cpp cannot add it to .*f16\.gguf"):
        LlamaCppBackend(model, adapter=other)


def test_an_adapter_stays_when_the_context_grows(tmp_path: Path) -> None:
    adapter = adapter_gguf(tmp_path)
    alone = LlamaCppBackend(tmp_path / "base.gguf", threads=1)
    both = LlamaCppBackend(tmp_path / "base.gguf", threads=1, adapter=adapter)
    assert both.name == "llama.cpp base.gguf with adapter.gguf"
    ids = list(range(5, 30))
    before = both.logits(ids, start=0)
    assert abs(before - alone.logits(ids, start=0)).max() > 0.1
    both.complete(ids * 60, max_tokens=2)
    assert abs(both.logits(ids, start=0) - before).max() < 1e-3
    both.close()
    alone.close()


def adapter_gguf(folder: Path) -> Path:
    """And beside it the base.gguf that it is for."""
    from export.gguf.adapter import adapter_to_gguf
    from export.gguf.to_gguf import to_gguf

    base = make_model(folder / "base", "llama", **SMALL, max_position_embeddings=2048)
    adapter = make_adapter(folder / "adapter", base, target_modules=LINEAR)
    to_gguf(base, folder / "base.gguf", "base", "f32")
    adapter_to_gguf(base, adapter, folder / "adapter.gguf", "f32")
    return folder / "adapter.gguf"


def random_backend(folder: Path, **config: int) -> LlamaCppBackend:
    from export.gguf.to_gguf import to_gguf

    model = make_model(folder / "model", "llama", **{**SMALL, **config})
    to_gguf(model, folder / "model.gguf", "model", "f32")
    return LlamaCppBackend(folder / "model.gguf", threads=1)


# -- threads


def test_a_reply_is_computed_on_the_cores_that_are_free_at_each_token(
    bundle_folder: Path, backend: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, used = itertools.cycle([2, 1, 3]), []
    monkeypatch.setattr(FreeCores, "threads", lambda self: next(free))
    decode = llama_cpp.llama_decode

    def watched(context: object, batch: object) -> int:
        used.append(llama_cpp.llama_n_threads(context))
        return int(decode(context, batch))

    monkeypatch.setattr(llama_cpp, "llama_decode", watched)
    _, opened = open_backend(bundle_folder, format="gguf", quantization="f16")
    question = questions(1)[0]
    made = opened.generate(question, max_tokens=20)
    opened.close()
    assert len(used) > 3
    assert set(used) == {1, 2, 3}
    assert made.text == backend.generate(question, max_tokens=20).text
