"""What an exported artifact is compared on: questions of the task, and strings that tokenizers disagree about."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedc.backends.chat import ChatTemplate
from edgedc.backends.onnx import read_tokenizer
from edgedc.bundle import Manifest
from edgedc.decomposition import Decomposition
from edgedc.errors import InputError
from edgedc.generation import Message
from edgedc.prompts import decompose_messages
from edgedc.tasks import Selection, load_examples

PROMPTS = 64

# Only tokenized. Each is of a kind on which two readers of one vocabulary have been seen to differ.
ODD_STRINGS = (
    # white space: none, alone, leading, trailing, in runs, other than a space
    "",
    " ",
    "   ",
    "  two before and two behind  ",
    "many   spaces      here and                                    there",
    "\n",
    "\n\n\n\nlines\n\n\nand \n mixed\n ",
    "\ttabs\t\tand\n\n\nlines\r\n  indented\r",
    "\r\n\r\nDOS\r\n",
    "no\u00a0break\u3000ideographic\u2003em\u2009thin\u202fnarrow",
    "vertical\x0btab, form\x0cfeed, next\x85line, line\u2028separator",
    "x = 1\n    if x:\n\treturn  x  # code\n",
    # digits, alone and in groups of every length
    "1 12 123 1234 12345 123456 1234567 12345678901234567890",
    "1234567890 3.14159 1,000,000 -5e-3 .5 1. 007",
    "٣٤٥ ๑๒๓ १२३ 二十 Ⅷ ① ½ ²³ x₁",
    "$5.50 €5 £1,000 50% 1st 2nd 3x4 10km/h 12:30 2026-11-20",
    # letters: composed and not, with marks, in scripts with and without spaces
    "cafe\u0301 and café, Å and Å, ﬁ and fi",
    "a\u0300\u0301\u0302\u0327 n\u0303 o\u0328\u0304",
    "naïve Ünïcödé Ærøskøbing Łódź İstanbul ıi ǅ straße ẞ",
    "Привет, как дела? ΑΒΓ αβγς",
    "שלום עולם، مرحبا بالعالم",
    "نَصٌّ مُشَكَّل ـــ لا",
    "हिन्दी में प्रश्न क्ष त्र ज्ञ",
    "ประเทศไทย ภาษาไทยไม่มีช่องว่าง",
    "中文没有空格，日本語もそうです。",
    "한국어 한글 \u1112\u1161\u11ab",
    "ＦＵＬＬ　ｗｉｄｔｈ １２３ ｱｲｳ",
    "𝕄𝕒𝕥𝕙 𝒜 𐍈 𠜎 𓀀",
    # emoji: one, with a modifier, joined, flags, keycaps
    "🙂",
    "👍🏽 👩‍👩‍👧 🏳️‍🌈 🇩🇪🇫🇷 #️⃣ ☺︎ ☺️",
    "🙂🚀text🙂 🙂  🙂",
    # what is invisible: joiners, marks of direction and order, controls, unassigned, private use
    "x\u0000y\u200b\u200dz\ufeff",
    "\ufeffbyte order mark first",
    "left\u200eright\u200f\u202eoverride\u202c soft\u00adhyphen",
    "bell\x07 escape\x1b[0m delete\x7f \x01\x02",
    "private \ue000 unassigned \u0378 replacement \ufffd last \U0010ffff",
    # apostrophes and punctuation, which pre-tokenizers have rules for
    "I'LL we've don't it's '' ''s ’s ‘quoted’",
    "he'd He'D 'tis rock'n'roll O'Neill's",
    "...!!!???---___***///\\\\\\|||~~~```@@@###",
    "“curly” „low“ «guillemets» — – ‐ … • ·",
    "a.b.c foo_bar fooBar foo-bar foo/bar foo@bar.com https://x.org/?q=1&r=%20",
    "{{ braces }} {% tag %} [[x]] <a href='b'>&amp;</a>",
    # special tokens of many families, whole, broken, and with spaces
    "<|end|><|user|> <|im_end|> <|endoftext|> </s> <s> [INST] <unk>",
    "<|begin_of_text|><|eot_id|><start_of_turn>user<end_of_turn><bos><eos><pad>",
    "<| end |> <|END|> <|end| > <|end|>\n<|end|>  <|end|>x",
    "<0x0A> <0xFF> ▁ ▁▁word Ġword Ċ",
    # repetition and length
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "ababababababababababababababababababab hahahahahahaha",
    "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen",
    "ALL CAPS aNd mIxEd CaSe " * 12,
)


@dataclass(frozen=True)
class Prompt:
    """`label` is what a report calls it; an odd string is only tokenized. `known` is the right answer, if it is."""

    label: str
    messages: list[Message]
    generate: bool = True
    known: Decomposition | None = None


def prompts_for(manifest: Manifest, file: Path | None) -> list[Prompt]:
    """Questions of a JSONL file, or of microworld's test split, as the model is asked them; then the odd strings."""
    selection = Selection(split="test", limit=PROMPTS)
    if file is not None:
        selection = Selection(task="jsonl", data=str(file), split="test")
    style, cap = manifest.prompt_style, manifest.max_subquestions
    prompts = [
        Prompt(e.question, decompose_messages(e.question, e.premise, style=style, cap=cap), known=e.decomposition)
        for e in load_examples(selection)
    ]
    odd = [Prompt(text, [{"role": "user", "content": text}], generate=False) for text in ODD_STRINGS]
    return [*prompts, *odd]


def check_length(model: Path, chat: ChatTemplate, prompts: Sequence[Prompt], context: int) -> None:
    """Raises InputError for a question that leaves no room for a reply: backends would, but only after the work."""
    tokenizer = read_tokenizer(model)
    for prompt in prompts:
        count = len(tokenizer.encode(chat.render(prompt.messages), add_special_tokens=False)) if prompt.generate else 0
        if count >= context:
            raise InputError(
                f"{model}: asked {prompt.label[:40]!r} it reads {count} tokens, all of its context of {context}: name "
                "shorter questions, or leave the comparison out with --no-gate"
            )
