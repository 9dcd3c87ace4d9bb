"""A reply that is held to a list asks nothing twice: it is turned where another way was nearest to being taken."""

import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from conftest import write_rows

from edgedc.backends import open_backend
from edgedc.backends.grammar import ListGrammar
from edgedc.backends.greedy import GreedyBackend
from edgedc.backends.llamacpp import LlamaCppBackend
from edgedc.backends.llamacpp_batch import Batch, Prompt
from edgedc.backends.llamacpp_context import LlamaContext, Part, common
from edgedc.backends.reply import Reply, Turned
from edgedc.decomposition import parse
from edgedc.errors import EdgedcError
from edgedc.files import key_of
from edgedc.generation import Generation, Message
from edgedc.prompts import decompose_messages

END = ""


class Told(GreedyBackend):
    """What it would write next is looked up by what its text ends with; the longest such ending holds."""

    name, context_length, _ends = "told", 500, frozenset([0])

    def __init__(self, *, likes: dict[str, dict[str, float]]) -> None:
        self._likes = likes
        self.pieces = sorted({END, *(piece for some in likes.values() for piece in some)})

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return [0]

    def render(self, messages: Sequence[Message]) -> str:
        raise NotImplementedError

    def tokenize(self, prompt: str) -> list[int]:
        raise NotImplementedError

    def text_of(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces[k] for k in ids)

    def row(self, ids: Sequence[int]) -> "np.typing.NDArray[np.float32]":
        text = self.text_of(ids)
        likes = self._likes[max((end for end in self._likes if text.endswith(end)), key=len)]
        return np.array([likes.get(piece, -50.0) for piece in self.pieces], np.float32)

    def logits(self, ids: Sequence[int], *, start: int) -> "np.typing.NDArray[np.float32]":
        raise NotImplementedError

    def scores(self, ids: list[int], max_tokens: int) -> "Generator[np.typing.NDArray[np.float32], int, None]":
        while True:
            ids = [*ids, (yield self.row(ids))]

    def close(self) -> None: ...


def told(**changed: dict[str, float]) -> dict[str, dict[str, float]]:
    """A model that asks "Who came?" for ever, with other likings at the places that are named."""
    places = {
        "start": ("", {"1.": 9.0}),
        "mark": (".", {" Who": 9.0, " When": 5.0}),
        "who": (" Who", {" came": 9.0, " left": 5.0}),
        "when": (" When", {" came": 9.0}),
        "came": (" came", {"?": 9.0, " then": 5.0}),
        "left": (" left", {"?": 9.0}),
        "then": (" then", {"?": 9.0}),
        "asked": ("?", {"\n": 9.0, END: 5.0}),
        "second": ("?\n", {"2.": 9.0}),
        "third": ("2.", {" Who": 9.0, " When": 5.0}),
    }
    likes = dict(places.values())
    for name, liked in changed.items():
        likes[places[name][0]] = liked
    return likes


def reply(model: Told, cap: int | None = 2, max_tokens: int = 60) -> tuple[Generation, list[str]]:
    heard: list[str] = []
    made = model.generate([], max_tokens=max_tokens, grammar=ListGrammar(cap), on_text=heard.append)
    assert "".join(heard) == made.text
    return made, heard


@pytest.mark.parametrize(
    ("place", "nearest", "text"),
    [
        ("third", {" Who": 9.0, " When": 8.0}, "1. Who came?\n2. When came?"),
        ("who", {" came": 9.0, " left": 8.0}, "1. Who came?\n2. Who left?"),
        ("came", {"?": 9.0, " then": 8.0}, "1. Who came?\n2. Who came then?"),
        ("asked", {"\n": 9.0, END: 8.0}, "1. Who came?"),
    ],
)
def test_it_turns_where_another_way_was_nearest(place: str, nearest: dict[str, float], text: str) -> None:
    model = Told(likes=told(**{place: nearest}))
    made, _ = reply(model)
    assert (made.text, made.finish_reason, made.constrained) == (text, "stop", True)
    assert model.generate([], max_tokens=12).text.count("Who came?") > 1  # as nothing holds it to a list


class Pool:
    """What a batch needs of llama.cpp's context, of a model that is told."""

    def __init__(self, model: Told) -> None:
        self.model = model
        self.known: dict[int, list[int]] = {}
        self.rows: list[np.typing.NDArray[np.float32]] = []

    def make_room(self, cells: int, *, apart: bool = False) -> None: ...

    def free_cells(self) -> int:
        return 1000

    def shared(self, ids: Sequence[int]) -> int:
        return len(ids)

    def claim(self, sequence: int, ids: Sequence[int], *, keep: int, cells: int) -> int:
        known = common(self.known.get(sequence, []), ids[:keep])
        self.known[sequence] = list(ids[:known])
        return known

    def evaluate(self, parts: Sequence[Part]) -> None:
        self.rows = []
        for part in parts:
            for token in part.ids:
                self.known[part.sequence].append(token)
                self.rows.append(self.model.row(self.known[part.sequence]))

    def scores(self, token: int) -> "np.typing.NDArray[np.float32]":
        return self.rows[token]

    def release(self, sequence: int) -> None: ...


def test_a_batch_goes_on_behind_what_was_taken_back() -> None:
    model = Told(likes=told(who={" came": 9.0, " left": 8.0}))
    replies = [Reply(model.text_of, frozenset([0]), 1, 60, ListGrammar(2), None, time.perf_counter()) for _ in range(3)]
    prompts = [Prompt([0], reply, 100) for reply in replies]
    made = [one for _, one in Batch(cast(LlamaContext, Pool(model)), prompts).results()]
    assert [one.text for one in made if isinstance(one, Generation)] == ["1. Who came?\n2. Who left?"] * 3


def test_what_was_tried_is_not_tried_again() -> None:
    """Both ways that come first lead to a line that is there."""
    likes = told(who={" came": 9.0, " left": 8.5}, third={" Who": 9.0, " When": 7.0}, when={" came": 9.0})
    likes["3."] = {" Who": 9.0, " When": 7.0}
    likes["\n2. When came?\n"] = {"3.": 9.0}
    likes["\n2. Who left?\n"] = {"3.": 9.0}
    made, heard = reply(Told(likes=likes), cap=3)
    assert made.text == "1. Who came?\n2. Who left?\n3. When came?"
    assert heard[4:6] == ["\n2. Who left", "?"]  # the line was held back until it parted from the first


def test_what_earlier_turns_in_a_line_lost_counts_in_the_next_one() -> None:
    """Of the third line's ways "When left?" is 0.8 from "When came?", which is 1.0 from what was likeliest there."""
    likes = told(third={" Who": 9.0, " When": 8.0, " Why": 7.4}, when={" came": 9.0, " left": 8.2})
    likes |= {"3.": likes["2."], " Why": {" came": 9.0}, "When came?\n": {"3.": 9.0}}
    made, _ = reply(Told(likes=likes), cap=3)
    assert made.text == "1. Who came?\n2. When came?\n3. Why came?"


def test_the_list_ends_where_there_is_nothing_else_to_ask() -> None:
    only = {"": {"1.": 9.0}, ".": {" Who": 9.0}, " Who": {"?": 9.0}, "?": {"\n": 9.0}, "?\n": {"2.": 9.0}}
    made, heard = reply(Told(likes=only), cap=None)
    assert (made.text, made.finish_reason) == ("1. Who?", "stop")
    assert "".join(heard) == "1. Who?"


def test_the_list_ends_when_it_was_turned_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedc.backends.reply._TURNS", 0)
    made, _ = reply(Told(likes=told()))
    assert (made.text, made.finish_reason) == ("1. Who came?", "stop")


def test_what_was_taken_back_does_not_count() -> None:
    made, _ = reply(Told(likes=told(who={" came": 9.0, " left": 8.0})))
    pieces = ["1.", " Who", " came", "?", "\n", "2.", " Who", " left", "?"]
    assert made.text == "".join(pieces)
    assert made.usage.output_tokens == len(pieces) + 1  # and the line break that ends it


def test_a_reply_that_is_cut_is_cut_at_what_may_stand() -> None:
    for most in range(1, 12):
        made, _ = reply(Told(likes=told(who={" came": 9.0, " left": 8.0})), max_tokens=most)
        assert made.usage.output_tokens <= most
        assert "1. Who came?\n2. Who left?".startswith(made.text) or made.text.endswith("2. Who came")


# -- what may follow is chosen by how likely it is


@pytest.mark.parametrize("others", [70, 71])
def test_the_likeliest_that_may_follow_is_taken_however_many_may_not(others: int) -> None:
    refused = {f"x{k}": 9.0 + k for k in range(others)}
    likes = told(start=refused | {"1.": 3.0}, mark={END: 9.5, " Who": 9.0, " When": 8.0})
    made, _ = reply(Told(likes=likes), cap=1)
    assert (made.text, made.constrained) == ("1. Who came?", True)


def test_a_token_without_text_leads_on_to_no_list() -> None:
    model = Told(likes=told(start={END: 9.5, "1.": 9.0}))
    model.pieces.append(END)  # as likely as the one that ends a reply
    assert reply(model, cap=1)[0].text == "1. Who came?"


def test_a_vocabulary_of_which_nothing_may_follow_is_an_error() -> None:
    with pytest.raises(EdgedcError, match="no token of the model's vocabulary goes on from ''"):
        reply(Told(likes={"": {"x": 9.0}}))


def test_a_list_that_the_model_ends_by_itself_was_not_held_to_anything() -> None:
    free = reply(Told(likes=told(asked={END: 9.0})))[0]
    none = reply(Told(likes={"": {"No decomposition": 9.0}}))[0]
    held = reply(Told(likes=told()), cap=1)[0]
    assert (free.text, free.usage.output_tokens) == ("1. Who came?", 5)  # the token that ends it is one
    assert (none.text, none.finish_reason) == ("No decomposition", "stop")
    assert [made.constrained for made in (free, none, held)] == [False, False, True]


class InBytes(Told):
    def text_of(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces[k] for k in ids).encode("latin-1").decode("utf-8", "replace")


def test_a_token_may_hold_a_character_and_the_half_of_the_next_one() -> None:
    model = InBytes(likes={"": {"a\xc3": 9.0}, "\ufffd": {"\xa9b\xc3": 9.0}, "b\ufffd": {"\xbc": 9.0}, "ü": {END: 9.0}})
    heard: list[str] = []
    made = model.generate([], max_tokens=9, on_text=heard.append)
    assert (made.text, heard) == ("aébü", ["a", "éb", "ü"])


def test_the_first_token_is_timed_and_not_the_last() -> None:
    class Slow(Told):
        def row(self, ids: Sequence[int]) -> "np.typing.NDArray[np.float32]":
            time.sleep(0.02)
            return super().row(ids)

    made, _ = reply(Slow(likes=told()), cap=1)
    assert made.first_token_s is not None
    assert made.first_token_s < made.total_s - 0.05


# -- real engines, a model that learnt to repeat itself


@pytest.fixture(scope="module")
def repeating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from export.ship import Order, ship
    from train.fitting.sft import train
    from train.settings import TrainSettings

    folder = tmp_path_factory.mktemp("repeating")
    asked = ["How many apples are there?", "How much does it cost?", "Who came first?"]
    rows = [
        {"key": key_of(k), "id": k, "question": f"{asked[k]} And then?", "status": "decomposed", "over_cap": False,
         "subquestions": [asked[k], asked[k], asked[k - 1], asked[k], asked[k - 1]]}
        for k in range(3)
    ]  # fmt: skip
    data = write_rows(folder / "rows.jsonl", rows)
    settings = TrainSettings(
        from_scratch="nano", vocabulary=512, max_steps=100, batch_size=3, learning_rate=3e-3, threads=1,
        max_subquestions=None,
    )  # fmt: skip
    model = train(data, folder / "nano", settings, print).folder
    ship(model, folder / "bundle", Order(("gguf", "onnx"), quantizations="f16", gated=False), print)
    return folder


def questions() -> list[list[Message]]:
    asked = ("How many apples are there?", "How much does it cost?", "Who came first?")
    return [decompose_messages(f"{question} And then?", style="compact-1", cap=None) for question in asked]


@pytest.mark.parametrize("engine", ["llamacpp", "llamacpp-batch", "onnx", "transformers"])
def test_every_engine_asks_nothing_twice(engine: str, repeating: Path) -> None:
    from edgedc.backends.transformers import TransformersBackend

    if engine == "transformers":
        backend = TransformersBackend(repeating / "nano", threads=1)
    else:
        format = "onnx" if engine == "onnx" else "gguf"
        _, backend = open_backend(repeating / "bundle", format=format, threads=1)
    freely = [backend.generate(messages, max_tokens=120).text for messages in questions()]
    assert all(len(set(parse(text).texts)) == 2 < len(parse(text).texts) for text in freely)
    if engine == "llamacpp-batch":
        assert isinstance(backend, LlamaCppBackend)
        made = list(backend.generate_many(questions() * 8, max_tokens=120, grammar=ListGrammar(5)))[:3]
    else:
        made = [backend.generate(m, max_tokens=120, grammar=ListGrammar(5)) for m in questions()]
    backend.close()
    for reply, free in zip(made, freely, strict=True):
        assert isinstance(reply, Generation)
        texts = parse(reply.text).texts
        assert texts[0] == parse(free).texts[0]
        assert len(set(texts)) == len(texts)
        assert reply.constrained


def test_who_stops_listening_at_a_turn_stops_nobody_else(repeating: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a batch; what is heard first of a turned line is said while it is turned."""
    _, backend = open_backend(repeating / "bundle", format="gguf", threads=1)
    alone = [backend.generate(messages, max_tokens=120, grammar=ListGrammar(5)).text for messages in questions()]
    turn, turned = Reply._turn, []

    def gone_at_first(self: Reply) -> Turned | None:
        turned.append(self)
        if self is turned[0]:
            raise EdgedcError("nobody hears it any more")
        return turn(self)

    monkeypatch.setattr(Reply, "_turn", gone_at_first)
    made = list(backend.generate_many(questions(), max_tokens=120, grammar=ListGrammar(5)))
    backend.close()
    assert [isinstance(reply, EdgedcError) for reply in made].count(True) == 1
    kept = [(reply.text, text) for reply, text in zip(made, alone, strict=True) if isinstance(reply, Generation)]
    assert all(text == other for text, other in kept)
