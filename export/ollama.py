"""An Ollama Modelfile for a bundle's GGUF.

Ollama does not run the chat template in the file but a Go template of its own. That is cut out of what the chat
template renders for probe conversations, and taken only when it gives the same text for all of them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from edgedc.backends.chat import ChatTemplate
from edgedc.errors import InputError
from edgedc.generation import Message

_SYSTEM, _USER, _REPLY, _AGAIN = "Xsys0X", "Xask1X", "Xsay2X", "Xask3X"


@dataclass(frozen=True)
class Pieces:
    """The text around the contents of a conversation that alternates between user and assistant.

    `start` begins one without a system message; `before_system` and `after_system` one with it, and are None where the
    template refuses one. What asks for the next reply stands at the end of `after_user`.
    """

    start: str
    before_system: str | None
    after_system: str | None
    before_user: str
    after_user: str
    before_reply: str
    after_reply: str
    end: str

    def render(self, messages: Sequence[Message]) -> str:
        text = self.start
        if messages[0]["role"] == "system":
            text = f"{self.before_system}{messages[0]['content']}{self.after_system}"
        for message in messages:
            if message["role"] == "user":
                text += self.before_user + message["content"] + self.after_user
            elif message["role"] == "assistant":
                text += self.before_reply + message["content"] + self.after_reply
        return text + self.end


def modelfile(
    file: str, chat: ChatTemplate | None, stops: Sequence[str], *, context_length: int, bos: str | None
) -> tuple[str, str | None]:
    """The Modelfile of a GGUF, and why it has no template, None where it has one.

    `chat` None is a model that goes on from raw text. `stops` are the texts of the tokens that end a reply. `bos` is
    the text that the engine puts before a prompt by itself, and that the template must then not write again.
    Format: https://github.com/ollama/ollama/blob/main/docs/modelfile.md.
    """
    lines = [f"FROM ./{file}", ""]
    reason: str | None = None
    if chat is None:
        lines += [
            "# The model has no chat template: the prompt is the text itself and a line break.",
            _text("{{ .Prompt }}\n"),
        ]
    else:
        try:
            pieces = pieces_of(chat)
            lines.append(_text(_go_template(pieces, bos)))
            spaced = [_user("  spaced\n")]
            if pieces.render(spaced) != chat.render(spaced):
                lines.append("# The chat template also strips white space around messages, which Ollama does not.")
            if bos and not all(head.startswith(bos) for head in (pieces.start, pieces.before_system or bos)):
                lines.append(f"# Ollama puts {bos} before every prompt, which the chat template does not.")
        except InputError as error:
            reason = str(error)
            lines += [f"# No TEMPLATE: {reason}.", "# Write one by hand, or Ollama guesses it from the file."]
    lines += ["", *(f'PARAMETER stop """{stop}"""' for stop in stops)]
    # greedy, as it was trained and compared; Ollama's own defaults sample, and punish repetition
    lines += [f"PARAMETER num_ctx {context_length}", "PARAMETER temperature 0", "PARAMETER repeat_penalty 1"]
    return "\n".join(lines) + "\n", reason


def pieces_of(chat: ChatTemplate) -> Pieces:
    """What stands around the messages. Raises InputError when the template does more than that, or needs the date."""
    if "strftime_now" in chat.text:
        raise InputError("the chat template writes the date")
    asked = _cut(chat, [_user(_USER)])
    talk = _cut(chat, [_user(_USER), _reply(_REPLY), _user(_AGAIN)])
    if asked is None or talk is None or (asked[0], asked[1]) != (talk[0], talk[3]):
        raise InputError("the chat template is not a plain sequence of role marks")
    told = _cut(chat, [_system(_SYSTEM), _user(_USER)])
    first = talk[0].removeprefix(chat.tokens.get("bos_token", ""))  # which stands before the first question alone
    before_user = _common_end([first, talk[2], *([told[1]] if told else [])])
    after_user = _common_start([talk[1], talk[3]])
    pieces = Pieces(
        start=talk[0].removesuffix(before_user),
        before_system=told[0] if told else None,
        after_system=told[1].removesuffix(before_user) if told else None,
        before_user=before_user,
        after_user=after_user,
        before_reply=talk[1].removeprefix(after_user),
        after_reply=talk[2].removesuffix(before_user),
        end=talk[3].removeprefix(after_user),
    )
    systems = [[], [_system("Be brief.\nBe kind.")]] if told else [[]]
    for head, turns in itertools.product(systems, (0, 1, 2)):
        said = [
            m for k in range(turns) for m in (_user(f"What is {k}?\n\nOr 'this'?"), _reply(f"1. How {k}?\n2. Why?"))
        ]
        probe = [*head, *said, _user("Who, <then>?")]
        if pieces.render(probe) != chat.render(probe):
            raise InputError("the chat template treats some messages differently from others")
    return pieces


def _go_template(pieces: Pieces, bos: str | None) -> str:
    """`bos` is what the engine writes itself.

    Variables: https://github.com/ollama/ollama/blob/main/docs/template.md; .System and .Messages come together.
    """
    bos = bos or ""
    start = _go(pieces.start.removeprefix(bos))
    if pieces.before_system is not None:
        told = f"{_go(pieces.before_system.removeprefix(bos))}{{{{ .System }}}}{_go(pieces.after_system or '')}"
        start = f"{{{{ if .System }}}}{told}{{{{ else }}}}{start}{{{{ end }}}}"
    user = f"{_go(pieces.before_user)}{{{{ .Content }}}}{_go(pieces.after_user)}"
    reply = f"{_go(pieces.before_reply)}{{{{ .Content }}}}{_go(pieces.after_reply)}"
    turns = f'{{{{ if eq .Role "user" }}}}{user}{{{{ else if eq .Role "assistant" }}}}{reply}{{{{ end }}}}'
    return f"{start}{{{{ range .Messages }}}}{turns}{{{{ end }}}}{_go(pieces.end)}"


def _cut(chat: ChatTemplate, messages: list[Message]) -> list[str] | None:
    """What stands before, between and behind the messages' contents; None where they are not there once, in order."""
    try:
        rest = chat.render(messages)
    except InputError:
        return None
    pieces = []
    for message in messages:
        before, mark, rest = rest.partition(message["content"])
        if not mark or message["content"] in rest:
            return None
        pieces.append(before)
    return [*pieces, rest]


def _common_end(texts: Sequence[str]) -> str:
    return _common_start([text[::-1] for text in texts])[::-1]


def _common_start(texts: Sequence[str]) -> str:
    alike = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    return "".join(column[0] for column in alike)


def _go(text: str) -> str:
    """Text that Go's template engine writes as it is, also right before an action."""
    text = text.replace("{{", '{{ "{{" }}')
    return f'{text[:-1]}{{{{ "{{" }}}}' if text.endswith("{") else text


def _text(template: str) -> str:
    """Ollama's reader takes no escapes, and loses what is not printable."""
    if '"""' in template or template.endswith('"') or not all(c.isprintable() or c in "\n\t" for c in template):
        raise InputError("the chat template writes what a Modelfile cannot hold")
    return f'TEMPLATE """{template}"""'


def _system(text: str) -> Message:
    return {"role": "system", "content": text}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _reply(text: str) -> Message:
    return {"role": "assistant", "content": text}
