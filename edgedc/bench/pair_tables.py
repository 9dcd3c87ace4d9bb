"""The results of a bench as a person reads them: tables, what to know about them, and the answer in a sentence."""

from collections.abc import Sequence

from edgedc.bench.metrics import Summary
from edgedc.bench.pair import Results
from edgedc.bench.statistics import Estimate
from edgedc.bench.table import Cell, table
from edgedc.words import counted


def show(results: Results) -> str:
    """At most 120 columns for names of up to 26 characters. A simulated solver is named in the title and the answer."""
    blocks = [title(results), table(*quality_and_speed(results)), table(*tokens_and_money(results))]
    if results.served:
        blocks[2:2] = [table(*waits(results)), table(*under_load(results))]
    if notes := notes_of(results):
        blocks.append("\n".join(notes))
    blocks.append("\n".join(answers(results)))
    return "\n\n".join(blocks)


def notes_of(results: Results) -> list[str]:
    """What a reader must know before they believe the figures, a line each."""
    notes = [note for system in results.systems for note in _notes(system)]
    notes[:0] = _circumstances(results)
    if any(system.decomposer == "local" for system in results.systems):
        notes.insert(0, "Money is what providers bill; the electricity of local decomposition is not in it.")
    return notes


def _circumstances(results: Results) -> list[str]:
    """How the questions were asked, and what of the table is to be read with care."""
    if not results.served:
        return []
    notes = [
        f"Load: {results.load}. Seconds count from when a question was meant to be asked; TTFT is that of the solver's "
        "last reply; waited: until something was done, or for a local model's turn. With 95 % bootstrap intervals."
    ]
    if results.limits.named:
        notes.append(f"Goodput: questions with {results.limits}, per second.")
    if results.network:
        notes.append(f"EMULATED network: {results.network}, on top of the real one.")
    for system, fared in zip(results.systems, results.served, strict=True):
        if fared.sittings > 1:
            notes.append(f"{system.system}: measured in {fared.sittings} sittings, whose seconds are added")
        if unknown := fared.answered - fared.first_token.n:
            missed = "; they count as too late" if results.limits.limit_ttft is not None else ""
            notes.append(f"{system.system}: {unknown} of {fared.answered} answers came without a first token{missed}")
    return notes


def answers(results: Results) -> list[str]:
    """One sentence for each local decomposer, against the remote one; none where there is nothing to compare."""
    remote = next((system for system in results.systems if system.decomposer == "remote"), None)
    if remote is None:
        return []
    locals_ = [system for system in results.systems if system.decomposer == "local"]
    label = f"With {_solver(results)}: " if results.solver.simulated or results.solver.priced_as else ""
    return [f"{label}{_sentence(system, remote, named=len(locals_) > 1)}" for system in locals_]


def _sentence(local: Summary, remote: Summary, *, named: bool) -> str:
    pairs = (
        ("accuracy {} against {} remote", _percent(local.accuracy), _percent(remote.accuracy)),
        ("{} against {} to decompose", _seconds(local.decompose_s), _seconds(remote.decompose_s)),
        ("{} against {} per 1,000 questions", _dollars(local.usd_per_1000), _dollars(remote.usd_per_1000)),
    )
    known = [text.format(here, there) for text, here, there in pairs if here and there]
    name = f" ({local.system})" if named else ""
    return (
        f"Local decomposition{name}: {', '.join(known)}." if known else f"Local decomposition{name}: nothing measured."
    )


def title(results: Results) -> str:
    """What was compared, on two lines."""
    price = results.solver.price
    network = f"; EMULATED network: {results.network.name}" if results.network else ""
    return (
        f"Local and remote decomposition with {_solver(results)}; prices: {price.date}{network}\n"
        f"{results.machine.cpu or 'unknown processor'}, {counted(results.machine.cores, 'core')}, "
        f"edgedc {results.edgedc}"
    )


def _solver(results: Results) -> str:
    solver = results.solver
    kind = "a SIMULATED solver" if solver.simulated else "solver"
    priced = f", priced as {solver.priced_as}" if solver.priced_as else ""
    return f"{kind} ({solver.model}{priced})"


def quality_and_speed(results: Results) -> tuple[Sequence[str], list[list[Cell]]]:
    """Headers, and a row for each system."""
    headers = (
        "system",
        "questions",
        "failed",
        "accuracy\n(95 % interval)",
        "exact\ndecomp.",
        "decomp.\nfirst token",
        "decomp.\nwhole",
        "decomp.\ntokens/s",
        "question\nmedian",
        "question\np90",
    )
    rows: list[list[Cell]] = []
    for s in results.systems:
        interval = f" ({100 * s.accuracy_95[0]:.0f}-{100 * s.accuracy_95[1]:.0f})" if s.accuracy_95 else ""
        accuracy = _percent(s.accuracy)
        rows.append(
            [
                s.system,
                s.questions,
                s.failed,
                accuracy and accuracy + interval,
                _percent(s.exact),
                _seconds(s.decompose_first_s),
                _seconds(s.decompose_s),
                s.decompose_tokens_per_s,
                _seconds(s.whole_s),
                _seconds(s.whole_p90_s),
            ]
        )
    return headers, rows


def waits(results: Results) -> tuple[Sequence[str], list[list[Cell]]]:
    """Headers, and a row for each system; with intervals where there are enough questions."""
    headers = ("a question's time", "TTFT\nmedian", "ITL\nmedian", "E2E\nmedian", "\np90", "\np99")
    rows: list[list[Cell]] = []
    for system, fared in zip(results.systems, results.served, strict=True):
        whole = (fared.whole.p50, fared.whole.p90, fared.whole.p99)
        times = (_percentile(fared.first_token.p50), _seconds(fared.itl_s), *map(_percentile, whole))
        rows.append([system.system, *times])
    return headers, rows


def under_load(results: Results) -> tuple[Sequence[str], list[list[Cell]]]:
    """Headers, and a row for each system."""
    headers = (
        "under load",
        "wall",
        "questions\n/s",
        "tokens\n/s",
        "goodput\n/s",
        "waited\nmedian",
        "\np90",
    )
    rows: list[list[Cell]] = []
    for system, fared in zip(results.systems, results.served, strict=True):
        waited = (fared.waited.p50, fared.waited.p90)
        rows.append(
            [
                system.system,
                _seconds(fared.wall_s),
                fared.answered_per_s,
                fared.tokens_per_s,
                fared.goodput,
                *(_seconds(found.value) if found else None for found in waited),
            ]
        )
    return headers, rows


def tokens_and_money(results: Results) -> tuple[Sequence[str], list[list[Cell]]]:
    """Headers, and a row for each system."""
    headers = (
        "per question",
        "decomp.\ntokens in",
        "\nout",
        "solver\ntokens in",
        "\nout",
        "bytes\nsent",
        "$ per 1,000\ndecomp.",
        "\nsolver",
        "\nboth",
        "$ per 1,000\ncorrect",
    )
    rows: list[list[Cell]] = []
    for s in results.systems:
        correct = None if s.usd_per_correct is None else 1000 * s.usd_per_correct
        rows.append(
            [
                s.system,
                s.decompose_tokens_in,
                s.decompose_tokens_out,
                s.solve_tokens_in,
                s.solve_tokens_out,
                s.bytes_per_question,
                _dollars(s.decompose_usd_per_1000),
                _dollars(s.solve_usd_per_1000),
                _dollars(s.usd_per_1000),
                _dollars(correct),
            ]
        )
    return headers, rows


def _notes(system: Summary) -> list[str]:
    """What a reader must know before they believe a row."""
    done = system.questions - system.failed
    notes = []
    if system.failed:
        notes.append(f"{system.system}: {system.failed} of {system.questions} failed, the first: {system.first_error}")
    # `auto` leads to these two
    expected = ("static", "single-stage") if system.mode == "auto" else (system.mode,)
    for mode, count in system.modes.items():
        if mode not in expected:
            why = f"{system.statuses.get('not_needed', 0)} need no decomposition"
            bad = f"{system.statuses.get('unparsed', 0)} could not be read"
            notes.append(
                f"{system.system}: {count} of {done} asked in mode {mode} instead of {system.mode} ({why}, {bad})"
            )
    if system.remarked > done - system.modes.get(expected[0], 0):
        notes.append(f"{system.system}: {system.remarked} of {done} answers carry remarks; the rows have them")
    if "estimate" in system.token_sources:
        notes.append(f"{system.system}: some tokens are estimates, as nobody counted them")
    if system.cached_tokens or system.reasoning_tokens:
        cached, thought = system.cached_tokens or 0, system.reasoning_tokens or 0
        notes.append(
            f"{system.system}: of a question's remote tokens, {cached:,.1f} were read from a cache and "
            f"{thought:,.1f} written as reasoning"
        )
    if system.doubtful_usd:
        most = _dollars(system.doubtful_usd)
        notes.append(f"{system.system}: not in its money: at most {most} for attempts that failed and may be billed")
    if system.failed_usd:
        notes.append(f"{system.system}: not in its money: {_dollars(system.failed_usd)} for questions that failed")
    return notes


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.0f} %"


def _seconds(seconds: float | None) -> str | None:
    """Milliseconds below a tenth of a second, and never a short time that reads as none."""
    if seconds is None:
        return None
    if seconds < 0.001:
        return "<1 ms"
    return f"{1000 * seconds:.0f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def _percentile(found: Estimate | None) -> str | None:
    """In seconds or, below a tenth of one, milliseconds."""
    if found is None:
        return None
    if found.interval is None:
        return _seconds(found.value)
    small = found.interval[1] < 0.1
    low, high = (f"{1000 * end:.0f}" if small else f"{end:.2f}" for end in found.interval)
    value = f"{1000 * found.value:.0f} ms" if small else f"{found.value:.2f} s"
    return f"{value} ({low}-{high})"


def _dollars(money: float | None) -> str | None:
    """Four decimals below ten cents, and never a small amount that reads as nothing."""
    if money is None:
        return None
    if 0 < money < 0.0001:
        return "<$0.0001"
    return f"${money:,.4f}" if 0 < money < 0.1 else f"${money:,.2f}"
