"""A bench as one HTML file that needs no network: the answer in a sentence, charts, tables, where figures come from.

Charts are Vega-Lite's (https://vega.github.io), drawn by the copies of vega and vega-lite in assets/, which become part
of the file.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from edgedc.bench.cost import Comparison, CostSettings
from edgedc.bench.latency import Latency
from edgedc.bench.metrics import Record
from edgedc.bench.pair import Results
from edgedc.bench.pair_tables import answers, notes_of, quality_and_speed, title, tokens_and_money, under_load, waits
from edgedc.errors import InputError
from edgedc.words import counted

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")  # Okabe and Ito's, for all eyes
_POINTS = 41  # of a break-even line
_USUAL = CostSettings()
_PARTS = ("solver", "decomposer", "electricity", "hardware")

Spec = dict[str, Any]
Section = tuple[str, str]  # heading, and HTML below it


def render(
    results: Results,
    records: Sequence[Record],
    compared: Sequence[Comparison] = (),
    settings: CostSettings = _USUAL,
    latency: Sequence[Latency] = (),
    gates: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """The report's HTML.

    `records` are the bench's raw rows. `compared` are costs under `settings`; `latency` is what
    `edgedc bench latency --output` wrote; `gates` are bundles' artifacts, as manifests have them, by bundles' names.
    """
    charts: dict[str, Spec] = {}
    sections: list[Section] = [_comparison(results)]
    for id, heading, spec, source in (
        ("pareto", "Quality against cost", _pareto(results), "Accuracy with its 95 % interval (Wilson)."),
        (
            "waits",
            "What a person waits",
            _waits(results, records),
            "Every answered question of the raw rows, from the start of "
            "its first request to the end of its last; boxes are quartiles, whiskers 1.5 times their distance.",
        ),
        (
            "split",
            "Where the money goes",
            _split(results, compared),
            "Tokens at the prices named below; electricity and hardware as named below.",
        ),
        (
            "even",
            "When it has paid",
            _break_even(results, compared, settings.fixed),
            _even_said(compared, settings.fixed),
        ),
    ):
        if spec is None:
            continue
        charts[id] = spec
        sections.append((heading, f'<div class="chart" id="{id}"></div><p class="source">{escape(source)}</p>'))
    if gates:
        sections.append(_quantisations(gates, latency))
    sections.append(_sources(results, compared, settings))
    solver = results.solver
    text = resources.files("edgedc").joinpath("bench", "assets")
    simulated = f"The solver ({solver.model}) is SIMULATED: its accuracy and its delays are made up."
    return Template(text.joinpath("report.html").read_text("utf-8")).substitute(
        title=escape(title(results).partition("\n")[0]),
        simulated=f'<p class="simulated">{escape(simulated)}</p>' if solver.simulated else "",
        answers="".join(f"<p>{escape(line)}</p>" for line in answers(results)) or "<p>Nothing to compare.</p>",
        sections="".join(f"<section><h2>{escape(head)}</h2>{body}</section>" for head, body in sections),
        charts=json.dumps(charts, allow_nan=False).replace("<", "\\u003c"),
        vega=text.joinpath("vega.min.js").read_text("utf-8"),
        vegalite=text.joinpath("vega-lite.min.js").read_text("utf-8"),
    )


def check_report(path: Path) -> None:
    """Raises InputError for a file that is not what `render` made."""
    try:
        with path.open("rb") as file:
            beginning = file.read(1024)  # which holds the template's head
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if b'<meta name="generator" content="edgedc">' not in beginning:
        raise InputError(f"{path}: not a report of  edgedc bench")


# -- tables


def _comparison(results: Results) -> Section:
    tables = [quality_and_speed(results), tokens_and_money(results)]
    tables += [waits(results), under_load(results)] if results.served else []
    notes = "".join(f"<p>{escape(note)}</p>" for note in notes_of(results))
    return "The systems", "".join(_table(headers, rows) for headers, rows in tables) + notes


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(header.strip()).replace(chr(10), '<br>')}</th>" for header in headers)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    if value is None:
        return "&ndash;"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return escape(f"{value:,}" if isinstance(value, int) else str(value))


def _quantisations(gates: Mapping[str, Sequence[Mapping[str, Any]]], latency: Sequence[Latency]) -> Section:
    speeds = {(made.model, made.artifact): made for made in latency}
    rows = []
    for bundle, artifacts in gates.items():
        for artifact in artifacts:
            made = speeds.get((bundle, artifact["files"][0]))
            gate = artifact["gate"]
            passed = {True: "passed", False: "FAILED", None: "not run"}[artifact["passed"]]
            rows.append(
                [
                    f"{bundle} {artifact['format']} {artifact['quantization']}",
                    f"{artifact['bytes'] / 1e6:.1f}",
                    passed,
                    gate.get("kl"),
                    *(_speed(made, test) for test in ("pp", "tg")),
                    f"{made.peak_bytes / 1e6:.0f}" if made else None,
                ]
            )
    headers = ["artifact", "MB", "gate", "KL", "prompt\ntokens/s", "generation\ntokens/s", "peak\nMB"]
    said = "Sizes and gate: the bundles' manifests. Speeds and memory: edgedc bench latency, on this machine."
    return "Quantisations", _table(headers, rows) + f'<p class="source">{said}</p>'


def _speed(made: Latency | None, test: str) -> float | None:
    found = [speed for speed in made.speeds if speed.test.startswith(test) and speed.samples_ts] if made else []
    return found[0].avg_ts if found else None


def _sources(results: Results, compared: Sequence[Comparison], settings: CostSettings) -> Section:
    machine, price = results.machine, results.solver.price
    counters = sorted({source for system in results.systems for source in system.token_sources})
    lines = [
        f"Machine: {machine.cpu or 'unknown processor'}, {counted(machine.cores, 'core')}, {machine.os}, "
        f"Python {machine.python}.",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in {"edgedc": results.edgedc, **machine.versions}.items()) + ".",
        f"Questions: {', '.join(f'{k} {v}' for k, v in results.selection.items() if v not in (None, ''))}.",
        f"Solver: {results.solver.model} at {results.solver.host}"
        + (f", priced as {results.solver.priced_as}" if results.solver.priced_as else "")
        + (", SIMULATED." if results.solver.simulated else "."),
        f"Prices of {price.model}: ${1e6 * price.input:g} per million tokens read, ${1e6 * price.cached:g} cached, "
        f"${1e6 * price.output:g} written; {price.date}, {price.source}.",
        f"Tokens were counted by: {', '.join(counters)}.",
        *(f"Energy of {made.name}: {made.energy}." for made in compared),
        *([_assumed(settings)] if compared else []),
        f"Made {results.created}; raw rows: {results.rows}.",
    ]
    return "Where the figures come from", "".join(f'<p class="source">{escape(line)}</p>' for line in lines)


def _assumed(settings: CostSettings) -> str:
    said = f"Electricity: ${settings.kwh_price:g} per kWh. Hardware: "
    if not settings.hardware_price:
        return said + "none is bought for this."
    years, worked = f"{settings.lifetime:g} years", f"{100 * settings.utilisation:g} % of the time"
    return f"{said}${settings.hardware_price:,.2f}, spread over {years} in which it works {worked}."


# -- charts


def _spec(data: Sequence[Mapping[str, Any]], height: int, **rest: Any) -> Spec:
    """Text in the page's own colour, so that it can be read on a dark page too."""
    quiet = {"labelColor": "currentColor", "titleColor": "currentColor", "gridColor": "#8883", "domainColor": "#888"}
    return {
        "data": {"values": list(data)},
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "background": None,
        "config": {
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": quiet
            | {"tickColor": "#888", "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
            # Figures as wide as 0.0000 or 200,000 run into each other where there is one for each 40 pixels.
            "axisX": {"tickCount": {"expr": "ceil(width / 90)"}, "labelFlush": False, "labelSeparation": 8},
            "axisY": {"labelLimit": 140},
            "legend": {
                "labelColor": "currentColor",
                "titleColor": "currentColor",
                "orient": "bottom",
                "columns": 2,
                "labelLimit": 300,
                "labelFontSize": 12,
            },
            "range": {"category": list(_COLOURS)},
            "text": {"color": "currentColor", "fontSize": 12},
        },
        **rest,
    }


def _by_system(results: Results) -> Spec:
    """A colour, shape or dash that is a system's own in every chart."""
    names = [s.system for s in results.systems]
    return {"field": "system", "type": "nominal", "title": None, "scale": {"domain": names}}


def _pareto(results: Results) -> Spec | None:
    data = [
        {
            "system": s.system,
            "dollars": s.usd_per_1000,
            "accuracy": s.accuracy,
            "low": s.accuracy_95[0],
            "high": s.accuracy_95[1],
        }
        for s in results.systems
        if s.accuracy is not None and s.accuracy_95 and s.usd_per_1000 is not None
    ]
    if not data:
        return None
    x = {"field": "dollars", "type": "quantitative", "title": "US dollars per 1,000 questions", "scale": {"zero": True}}
    y = {"type": "quantitative", "title": "accuracy", "axis": {"format": "%"}, "scale": {"domain": [0, 1]}}
    colour = _by_system(results)
    return _spec(
        data,
        300,
        encoding={"x": x, "color": colour},
        layer=[
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"y": y | {"field": "low"}, "y2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 120, "opacity": 1},
                "encoding": {
                    "y": y | {"field": "accuracy"},
                    "shape": colour,
                },
            },
        ],
    )


def _waits(results: Results, records: Sequence[Record]) -> Spec | None:
    data = [{"system": r.system, "seconds": r.seconds} for r in records if not r.error and r.seconds > 0]
    if not data:
        return None
    systems = list(dict.fromkeys(row["system"] for row in data))
    x = {"field": "seconds", "type": "quantitative", "title": "seconds a question", "scale": {"zero": True}}
    y = {"field": "system", "type": "nominal", "title": None, "sort": systems}
    colour = _by_system(results) | {"legend": None}
    mark = {"type": "boxplot", "size": 18, "median": {"color": "currentColor"}, "rule": {"color": "currentColor"}}
    return _spec(data, 44 * len(systems), mark=mark, encoding={"x": x, "y": y, "color": colour})


def _split(results: Results, compared: Sequence[Comparison]) -> Spec | None:
    local = {made.name: made.local for made in compared}
    data = []
    for s in results.systems:
        own = local.get(s.system)
        here = (1000 * own.electricity, 1000 * own.hardware) if own else (None, None)
        spent = (s.solve_usd_per_1000, s.decompose_usd_per_1000, *here)
        for order, (part, dollars) in enumerate(zip(_PARTS, spent, strict=True)):
            if dollars:
                data.append({"system": s.system, "part": part, "dollars": dollars, "order": order})
    if not data:
        return None
    systems = [s.system for s in results.systems]
    encoding = {
        "x": {"field": "dollars", "type": "quantitative", "title": "US dollars per 1,000 questions"},
        "y": {"field": "system", "type": "nominal", "title": None, "sort": systems},
        "color": {"field": "part", "type": "nominal", "title": None, "sort": list(_PARTS)},
        "order": {"field": "order"},
    }
    return _spec(data, 34 * len(systems), mark={"type": "bar", "size": 20}, encoding=encoding)


def _break_even(results: Results, compared: Sequence[Comparison], fixed: float) -> Spec | None:
    """Money spent over the questions asked; twice as far as where the last line crosses."""
    if not compared:
        return None
    crossings = [made.queries for made in compared if made.queries]
    most = 2 * max(crossings) if crossings else 10_000.0
    lines = [("remote", 0.0, compared[0].remote.total), *((made.name, fixed, made.local.total) for made in compared)]
    data = [
        {"system": name, "queries": most * k / (_POINTS - 1), "dollars": start + each * most * k / (_POINTS - 1)}
        for name, start, each in lines
        for k in range(_POINTS)
    ]
    legend = {"values": [name for name, _, _ in lines]}  # the others' colours are taken, and they have no line
    encoding = {
        "x": {"field": "queries", "type": "quantitative", "title": "questions"},
        "y": {"field": "dollars", "type": "quantitative", "title": "US dollars spent"},
        "color": _by_system(results) | {"legend": legend},
        "strokeDash": _by_system(results) | {"legend": legend},
    }
    return _spec(data, 260, mark={"type": "line", "strokeWidth": 2.5}, encoding=encoding)


def _even_said(compared: Sequence[Comparison], fixed: float) -> str:
    said = [
        f"{made.name}: {'never' if made.queries is None else f'after {made.queries:,.0f} questions'}"
        for made in compared
    ]
    return f"With ${fixed:,.2f} spent beforehand. " + "; ".join(said) + "."
