"""What `edgedc serve` adds to the decomposer behind it: questions/s over HTTP, by 1, 4 and 16 clients at once, against
the same backend in a process of its own, one question after the other and all together.

On a random model in the shape of SmolLM2-135M, replies of --tokens tokens, no two questions alike; short turns, as a
machine's speed changes from one minute to the next, and each ratio is the median of those within a turn.
Prints a table and writes results/serving_speed.json beside this file.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
from shapes import make_model

from edgedc.backends.cores import physical_cores
from edgedc.bundle import read_manifest
from edgedc.machine import cpu_model
from edgedc.prompts import decompose_messages

RESULT = Path(__file__).parent / "results" / "serving_speed.json"
ALONE, TOGETHER = "in process, one at a time", "in process, together"
ONE, SIXTEEN = "HTTP, 1 at once", "HTTP, 16 at once"
SENTENCE = "How many pens and pencils does each of the {} children get?"
_held: dict[str, Any] = {}
_numbers = itertools.count(100)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=16, help="of a way in a turn; a quarter, alone (default: 16)")
    parser.add_argument("--turns", type=int, default=7, help="(default: 7)")
    parser.add_argument("--tokens", type=int, default=64, help="of a reply (default: 64)")
    parser.add_argument("--threads", type=int, default=physical_cores(), help="default: the physical cores")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = made(Path(scratch))
        settings = (bundle, options.threads, options.tokens)
        pool = ProcessPoolExecutor(1, get_context("spawn"), open_backend, settings)
        with served(*settings) as url:
            ways: dict[str, Callable[[list[str]], list[float]]] = {
                ALONE: lambda texts: pool.submit(alone, texts).result(),
                ONE: partial(over_http, url, 1),
                TOGETHER: lambda texts: pool.submit(together, texts).result(),
                SIXTEEN: partial(over_http, url, 16),
                "HTTP, 4 at once": partial(over_http, url, 4),
            }
            figures = measure(ways, options.questions, options.turns)
        pool.shutdown()
    pairs = [(ONE, ALONE), (SIXTEEN, TOGETHER), (SIXTEEN, ONE)]
    ratios = {f"{a} / {b}": ratio(figures, a, b) for a, b in pairs}
    show(figures, ratios)
    result = {
        "questions": options.questions,
        "turns": options.turns,
        "reply_tokens": options.tokens,
        "threads": options.threads,
        "figures": figures,
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {name: version(name) for name in ("edgedc", "llama-cpp-python", "starlette", "uvicorn", "httpx")},
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    return 0


def made(scratch: Path) -> Path:
    maker = get_context("spawn").Process(target=make_model, args=(scratch / "random",))
    maker.start()
    maker.join()
    command = [sys.executable, "-m", "edgedc", "export", "--no-gate", "--quantization", "q4_0"]
    bundle = scratch / "bundle"
    subprocess.run([*command, str(scratch / "random"), str(bundle)], check=True, stdout=subprocess.DEVNULL)
    return bundle


def measure(
    ways: dict[str, Callable[[list[str]], list[float]]], count: int, turns: int
) -> dict[str, list[dict[str, float]]]:
    """For each turn: questions/s, and the median and the largest seconds that one waited. The first is not counted."""
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in list(ways.items())[:: -1 if turn % 2 else 1]:
            asked = max(1, count // 4) if name in (ALONE, ONE) else count
            texts = [" ".join(SENTENCE.format(next(_numbers)) for _ in range(4)) for _ in range(asked)]
            started = time.perf_counter()
            waited = way(texts)
            rate = asked / (time.perf_counter() - started)
            if turn:
                row = {"questions/s": rate, "median s": statistics.median(waited), "most s": max(waited)}
                figures[name].append({key: round(value, 4) for key, value in row.items()})
    return figures


def ratio(figures: dict[str, list[dict[str, float]]], ours: str, theirs: str) -> float:
    pairs = zip(figures[ours], figures[theirs], strict=True)
    return statistics.median(a["questions/s"] / b["questions/s"] for a, b in pairs)


def show(figures: dict[str, list[dict[str, float]]], ratios: dict[str, float]) -> None:
    print(f"{'':32}{'questions/s':>12}{'median s':>12}{'most s':>12}")
    for name, turns in figures.items():
        print(f"{name:32}" + "".join(f"{statistics.median(t[key] for t in turns):12.3f}" for key in turns[0]))
    for name, value in ratios.items():
        print(f"{name:48}{value:8.2f}")


def open_backend(bundle: Path, threads: int, tokens: int) -> None:
    from edgedc.backends.llamacpp import LlamaCppBackend

    backend = LlamaCppBackend(next(bundle.glob("*.gguf")), threads=threads)
    _held.update(backend=backend, tokens=tokens, manifest=read_manifest(bundle))


def asked(texts: list[str]) -> Iterator[Any]:
    style, cap = _held["manifest"].prompt_style, _held["manifest"].max_subquestions
    return (decompose_messages(text, style=style, cap=cap) for text in texts)


def alone(texts: list[str]) -> list[float]:
    return [_held["backend"].generate(one, max_tokens=_held["tokens"]).total_s for one in asked(texts)]


def together(texts: list[str]) -> list[float]:
    return [made.total_s for made in _held["backend"].generate_many(asked(texts), max_tokens=_held["tokens"])]


@contextmanager
def served(bundle: Path, threads: int, tokens: int) -> Iterator[str]:
    flags = ["--port", "0", "--model", bundle, "--backend", "llamacpp", "--no-grammar"]
    command = [sys.executable, "-m", "edgedc", "serve", *flags, "--threads", threads, "--max-tokens", tokens]
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    said = ""
    try:
        while "http://" not in said:
            said = process.stderr.readline()
            if not said:
                raise SystemExit("edgedc serve ended")
        threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would halt it
        yield "http://" + said.partition("http://")[2].partition(";")[0]
    finally:
        process.terminate()
        process.wait(30)


def over_http(url: str, clients: int, texts: list[str]) -> list[float]:
    """Each client asks the next question that nobody has asked yet."""
    return asyncio.run(_ask_all(url, clients, texts))


async def _ask_all(url: str, clients: int, texts: list[str]) -> list[float]:
    waited: list[float] = []
    left = iter(texts)

    async def ask(client: httpx.AsyncClient) -> None:
        for text in left:
            started = time.perf_counter()
            body = {"model": "edgedc-decomposer", "messages": [{"role": "user", "content": text}]}
            (await client.post(f"{url}/chat/completions", json=body)).raise_for_status()
            waited.append(time.perf_counter() - started)

    async with httpx.AsyncClient(timeout=120) as client:
        await asyncio.gather(*(ask(client) for _ in range(clients)))
    return waited


if __name__ == "__main__":
    sys.exit(main())
