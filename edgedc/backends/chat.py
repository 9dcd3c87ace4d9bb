"""What stands around the weights in a model folder: the chat template, the special tokens, where a reply ends."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from edgedc.backends.greedy import encodable
from edgedc.bundle import CHAT_TEMPLATE, SpecialIds
from edgedc.errors import InputError, MissingExtra
from edgedc.files import read_object
from edgedc.generation import Message

try:
    import jinja2
    import jinja2.ext
    import jinja2.nodes
    import jinja2.parser
    import jinja2.sandbox
except ModuleNotFoundError as error:
    raise MissingExtra("jinja2", "llamacpp") from error

TOKENIZER = "tokenizer.json"
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# What an expression of a template can raise when its author did not foresee the messages.
_TEMPLATE_ERRORS = (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError)


class ChatTemplate:
    """Renders messages exactly as `tokenizer.apply_chat_template(..., add_generation_prompt=True)` does.

    `tokens` holds the special tokens' texts under transformers' names (`bos_token`, ...); one that the model lacks is
    left out, because templates test for it. `where` names the template's origin in errors.
    """

    def __init__(self, text: str, tokens: Mapping[str, str], where: str) -> None:
        self.text, self.tokens, self.where = text, dict(tokens), where
        try:
            self._template = _environment().from_string(text)
        except _TEMPLATE_ERRORS as error:
            raise InputError(f"{where}: not a chat template that can be read: {_line(error)}") from error
        check_heard(self.render, where)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt, ending where the model is to go on. Raises InputError when the template does."""
        try:
            text = self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=True, **self.tokens
            )
        except _TEMPLATE_ERRORS as error:
            raise InputError(f"{self.where}: the chat template refused these messages: {_line(error)}") from error
        return encodable(text)


def check_heard(render: Callable[[Sequence[Message]], str], where: object) -> None:
    """Raises InputError for a template of which no question comes out: a model would learn, and say, the same to all.

    One that refuses such a message says so when it is rendered for somebody.
    """
    try:
        one, other = (render([{"role": "user", "content": text}]) for text in ("How many?", "Who was it?"))
    except (InputError, jinja2.TemplateError):
        return
    if one == other:
        raise InputError(f"{where}: the chat template writes the same whatever is asked: take the model's own")


def read_chat_template(folder: Path) -> ChatTemplate:
    """The template of a model folder or bundle. Raises InputError when it has none."""
    path = folder / CHAT_TEMPLATE
    if not path.is_file():
        raise InputError(f"{path}: missing; copy the model's chat template there")
    # newline="": the template goes to the model as it is, a carriage return too
    with path.open(encoding="utf-8", newline="") as file:
        return ChatTemplate(file.read(), special_tokens(folder), str(path))


def raw_prompts(folder: Path) -> ChatTemplate:
    """What a model without a chat template is asked: each message's text and a line break, behind BOS where its
    tokenizer puts one before every text."""
    bos = first_token(folder)
    text = "{{ bos_token }}{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"
    return ChatTemplate(text, {"bos_token": bos or ""}, f"{folder} (raw prompts)")


def first_token(folder: Path) -> str | None:
    """The special token that tokenizer.json puts before every text, None where it puts none.

    Format: the post_processor that https://github.com/huggingface/tokenizers writes.
    """
    waiting: list[Any] = [read_config(folder, TOKENIZER).get("post_processor")]
    while waiting:
        match waiting.pop(0):
            case {"type": "Sequence", "processors": [*several]}:
                waiting = [*several, *waiting]
            case {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": str(token)}}, *_]}:
                return token
            case {"type": "BertProcessing" | "RobertaProcessing", "cls": [str(token), int()]}:
                return token
    return None


def read_special_ids(folder: Path) -> SpecialIds:
    """BOS, EOS and the end tokens by the files of a model folder or bundle. Raises InputError as `end_tokens` does."""
    texts, ids = special_tokens(folder), token_ids(folder)
    bos, eos = (ids.get(texts.get(name, "")) for name in ("bos_token", "eos_token"))
    first = first_token(folder)
    return SpecialIds(bos, eos, tuple(sorted(end_tokens(folder, ids.get))), first is not None and ids.get(first) == bos)


def token_ids(folder: Path) -> dict[str, int]:
    """The id of every token of tokenizer.json, added ones too, by its text. Raises InputError for another format."""
    row = read_config(folder, TOKENIZER)
    try:
        vocab = row["model"]["vocab"]
        known = dict(vocab) if isinstance(vocab, dict) else {piece: k for k, (piece, _) in enumerate(vocab)}
        return known | {token["content"]: token["id"] for token in row.get("added_tokens", [])}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / TOKENIZER}: not a tokenizer that can be read: {error!r}") from error


def special_tokens(folder: Path) -> dict[str, str]:
    """The special tokens of tokenizer_config.json, by transformers' names."""
    config = read_config(folder, "tokenizer_config.json")
    tokens = {}
    for name in SPECIAL_TOKENS:
        value = config.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            tokens[name] = value
    return tokens


def end_tokens(folder: Path, id_of: Callable[[str], int | None]) -> frozenset[int]:
    """The ids that end a reply, by generation_config.json, config.json and the tokenizer's own end token.

    `id_of` gives the id of a token's text. Raises InputError when there are none: the model would never stop.
    """
    ids: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = read_config(folder, name).get("eos_token_id")
        ids.update(i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int))
    eos = id_of(special_tokens(folder).get("eos_token", ""))
    ids.update([] if eos is None else [eos])
    if not ids:
        raise InputError(f"{folder}: no end token: set eos_token in tokenizer_config.json")
    return frozenset(ids)


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object that stands beside the weights; empty when there is none."""
    path = folder / name
    return read_object(path) if path.is_file() else {}


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks an assistant's text for training; when a prompt is rendered it changes nothing."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up for chat templates (transformers/utils/chat_template_utils.py, 4.57)."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes HTML characters."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
