"""edgedc against what one would write instead, with the same model, questions, prompt and threads.

Each way runs in a process of its own, one after the other, and the round is repeated: seconds until the first question
can be asked, seconds a question, questions a second, peak memory, and whether the decompositions are edgedc's. The
teacher in the cloud is SIMULATED: edgedc's own server with a stated delay, priced as --price-as. Prints the table that
stands in README.md beside this file and writes results/peers.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from edgedc.backends import choose
from edgedc.backends.cores import physical_cores
from edgedc.bundle import read_manifest
from edgedc.catalogue import find_weights
from edgedc.decomposition import parse
from edgedc.generation import Message
from edgedc.machine import cpu_model
from edgedc.prices import find_price
from edgedc.prompts import MAX_TOKENS_DECOMPOSE, decompose_messages
from edgedc.solvers.loopback import Timing
from edgedc.tasks.microworld import Problem, problems

RESULT = Path(__file__).parent / "results" / "peers.json"
CLOUD = "teacher in the cloud (SIMULATED)"
# A hosted small model as one meets it from a home: an assumption that is printed with the figures.
DELAY = Timing(first_token_s=0.5, per_token_s=0.0125)

Messages = Sequence[Message]
Said = list[str]


@dataclass(frozen=True)
class Setup:
    """`source` is the model folder, `gguf` and `onnx` what was made from it; `url` is the simulated teacher's."""

    bundle: Path
    gguf: Path
    source: Path
    onnx: Path
    threads: int
    asked: list[Messages]
    url: str = ""


@dataclass(frozen=True)
class Measured:
    ready_s: float
    seconds: list[float]  # of each question; of a batch, the whole divided by its questions
    peak_mb: float
    said: Said


# Each opens its model, as its documentation says, and returns how to ask it one question after the other.
def edgedc_(setup: Setup) -> Callable[[Messages], str]:
    from edgedc.backends import open_choice

    backend = open_choice(choose(setup.bundle, engine="llamacpp"), threads=setup.threads)
    return lambda messages: backend.generate(messages, max_tokens=MAX_TOKENS_DECOMPOSE).text


def llama_cpp_python(setup: Setup) -> Callable[[Messages], str]:
    from llama_cpp import Llama

    model = Llama(str(setup.gguf), n_ctx=1024, n_threads=setup.threads, n_threads_batch=setup.threads, verbose=False)

    def ask(messages: Messages) -> str:
        made = model.create_chat_completion(list(messages), temperature=0, max_tokens=MAX_TOKENS_DECOMPOSE)
        return made["choices"][0]["message"]["content"]

    return ask


def transformers(setup: Setup) -> Callable[[Messages], str]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(setup.threads)
    model = AutoModelForCausalLM.from_pretrained(setup.source, dtype=torch.bfloat16)
    return _generating(model, AutoTokenizer.from_pretrained(setup.source))


def onnxruntime(setup: Setup) -> Callable[[Messages], str]:
    from onnxruntime import SessionOptions
    from optimum.onnxruntime import ORTModelForCausalLM
    from transformers import AutoTokenizer

    options = SessionOptions()
    options.intra_op_num_threads = setup.threads
    model = ORTModelForCausalLM.from_pretrained(setup.onnx, session_options=options)
    return _generating(model, AutoTokenizer.from_pretrained(setup.source))


def _generating(model: object, tokenizer: object) -> Callable[[Messages], str]:
    def ask(messages: Messages) -> str:
        given = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_tensors="pt")
        made = model.generate(given, max_new_tokens=MAX_TOKENS_DECOMPOSE, do_sample=False)
        return tokenizer.decode(made[0, given.shape[1] :], skip_special_tokens=True)

    return ask


def cloud(setup: Setup) -> Callable[[Messages], str]:
    from openai import OpenAI

    client = OpenAI(base_url=setup.url, api_key="none")

    def ask(messages: Messages) -> str:
        made = client.chat.completions.create(model="simulated-solver", messages=list(messages), temperature=0)
        return made.choices[0].message.content or ""

    return ask


WAYS: dict[str, Callable[[Setup], Callable[[Messages], str]]] = {
    "edgedc, one at a time": edgedc_,
    "llama-cpp-python": llama_cpp_python,
    "transformers, bfloat16": transformers,
    "ONNX Runtime through optimum, fp32": onnxruntime,
    CLOUD: cloud,
}
TOGETHER = "edgedc, many at once"  # as decompose --input


def measure(name: str, setup: Setup) -> Measured:
    """In a process of its own, as everything that is loaded counts."""
    if name == TOGETHER:
        return _together(setup)
    start = time.perf_counter()
    ask = WAYS[name](setup)
    ready = time.perf_counter() - start
    ask(setup.asked[0])
    seconds, said = [], []
    for messages in setup.asked:
        start = time.perf_counter()
        said.append(ask(messages))
        seconds.append(time.perf_counter() - start)
    return Measured(ready, seconds, _peak_mb(), said)


def _together(setup: Setup) -> Measured:
    from edgedc.backends import open_choice

    start = time.perf_counter()
    backend = open_choice(choose(setup.bundle, engine="llamacpp"), threads=setup.threads)
    ready = time.perf_counter() - start
    list(backend.generate_many(setup.asked[:1], max_tokens=MAX_TOKENS_DECOMPOSE))
    start = time.perf_counter()
    made = list(backend.generate_many(setup.asked, max_tokens=MAX_TOKENS_DECOMPOSE))
    each = (time.perf_counter() - start) / len(setup.asked)
    return Measured(ready, [each] * len(made), _peak_mb(), [one.text for one in made])


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("demo-base"), help="a model folder (default: demo-base)")
    parser.add_argument("--quantization", default="q8_0", help="of its GGUF (default: q8_0)")
    parser.add_argument("--questions", type=int, default=40, help="of microworld's test split (default: 40)")
    parser.add_argument("--threads", type=int, default=physical_cores(), help="default: the physical cores")
    parser.add_argument("--runs", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--price-as", default="gpt-4o-mini", help="of the teacher (default: gpt-4o-mini)")
    options = parser.parse_args()
    asked = problems("test", options.questions)
    with tempfile.TemporaryDirectory() as scratch:
        setup = prepare(find_weights(options.model), options.quantization, Path(scratch), asked)
        rounds = run(setup, asked, options.threads, options.runs)
    rows = [summary(name, [made[name] for made in rounds], rounds[0], options.price_as, setup) for name in rounds[0]]
    print(markdown(rows))
    RESULT.parent.mkdir(exist_ok=True)
    result = {
        "rows": rows,
        "model": f"{options.model}, {options.quantization}",
        "questions": options.questions,
        "threads": options.threads,
        "runs": options.runs,
        "simulated_teacher": asdict(DELAY) | {"priced_as": options.price_as},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {
            name: version(name)
            for name in ("edgedc", "llama-cpp-python", "transformers", "torch", "onnxruntime", "optimum")
        },
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def prepare(source: Path, quantization: str, scratch: Path, asked: Sequence[Problem]) -> Setup:
    from optimum.exporters.onnx import main_export

    bundle = scratch / "bundle"
    command = [sys.executable, "-m", "edgedc", "export", "--no-gate", "--quantization", quantization]
    subprocess.run([*command, str(source), str(bundle)], check=True, stdout=subprocess.DEVNULL)
    manifest = read_manifest(bundle)
    choice = choose(bundle, engine="llamacpp")
    assert choice.artifact is not None
    main_export(str(source), scratch / "onnx", task="text-generation-with-past", dtype="fp32", do_validation=False)
    style, cap = manifest.prompt_style, manifest.max_subquestions
    messages = [decompose_messages(problem.question, style=style, cap=cap) for problem in asked]
    return Setup(bundle, bundle / choice.artifact.path, source, scratch / "onnx", 0, messages)


def run(setup: Setup, asked: Sequence[Problem], threads: int, runs: int) -> list[dict[str, Measured]]:
    from edgedc.solvers.simulated import simulated_server

    rounds = []
    with simulated_server(asked, timing=DELAY) as url:
        setup = replace(setup, threads=threads, url=url)
        for number in range(runs):
            rounds.append({})
            for name in (TOGETHER, *WAYS):
                print(f"round {number + 1} of {runs}: {name}", file=sys.stderr)
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    rounds[-1][name] = pool.submit(measure, name, setup).result()
    return rounds


def summary(name: str, made: list[Measured], first: dict[str, Measured], price: str, setup: Setup) -> dict[str, object]:
    """Medians over the rounds. What was said is compared with what edgedc says to one question at a time."""
    ours = [parse(text).texts for text in first["edgedc, one at a time"].said]
    same = sum(parse(text).texts == mine for text, mine in zip(made[0].said, ours, strict=True))
    row: dict[str, object] = {
        "way": name,
        "ready_s": statistics.median(one.ready_s for one in made),
        "question_s": statistics.median(statistics.median(one.seconds) for one in made),
        "questions_per_s": statistics.median(len(one.seconds) / sum(one.seconds) for one in made),
        "peak_mb": statistics.median(one.peak_mb for one in made),
        "same_decompositions": None if name == CLOUD else same,
        "questions": len(ours),
        "dollars_per_1000": 0.0,
    }
    if name == CLOUD:
        from edgedc.usage import Usage, estimate_tokens

        cost = find_price(price).cost
        spent = [
            cost(Usage(sum(estimate_tokens(m["content"]) for m in asked), 0, estimate_tokens(said), "estimate"))
            for asked, said in zip(setup.asked, made[0].said, strict=True)
        ]
        row["dollars_per_1000"] = 1000 * statistics.mean(spent)
    return row


def markdown(rows: list[dict[str, object]]) -> str:
    ours = next(row for row in rows if row["way"] == "edgedc, one at a time")
    lines = [
        "| way | s until ready | s a question | questions/s | against edgedc | peak MB | same lists | $ for 1,000 |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        same, of = row["same_decompositions"], row["questions"]
        lines.append(
            f"| {row['way']} | {row['ready_s']:.2f} | {row['question_s']:.3f} | {row['questions_per_s']:.1f} "
            f"| {row['questions_per_s'] / ours['questions_per_s']:.2f} | {row['peak_mb']:.0f} "
            f"| {'-' if same is None else f'{same} of {of}'} | {row['dollars_per_1000']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
