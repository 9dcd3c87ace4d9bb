"""An answer on stdout as it forms, where that is a terminal."""

import click

from edgedc.answers import Begun, Stage
from edgedc.commands._answers import text_of
from edgedc.commands._say import plain, say
from edgedc.decomposition import render
from edgedc.files import Row
from edgedc.prompts import final_answer


class Screen:
    """The decomposition once it is there, the steps' answers on stderr, and the solver's last reply as it comes."""

    def __init__(self) -> None:
        self._said = ""
        self._listed = False

    def stage(self, stage: Stage, begun: Begun) -> None:
        made = begun.decomposition
        if stage.name == "decompose" and made and made.status == "decomposed":
            self._listed = True
            say(f"{render(made)}\n")
        elif stage.name.startswith("step ") and not stage.failed:
            click.echo(f"{stage.name}: {plain(final_answer(stage.generation.text))}", err=True)

    def piece(self, stage: str, text: str) -> None:
        if stage == "solve":
            self._said += text
            say(text, nl=False)

    def again(self) -> None:
        """Somebody else is asked: what was heard so far is not the answer."""
        if self._said:
            say("\n")
        self._said = ""

    def finish(self, row: Row) -> None:
        """Whatever is in the row, and has not been said."""
        if self._said == row["text"]:
            say("", nl=bool(self._said))
        else:
            self.again()
            say(row["text"] if self._listed else text_of(row))
