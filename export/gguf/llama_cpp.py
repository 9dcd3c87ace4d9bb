"""Converts with llama.cpp's own converter, for the architectures that families.py does not know.

The converter comes with the source of llama-cpp-python, so that the one that is used belongs to the llama.cpp that is
going to read its output.
"""

import importlib.metadata
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from edgedc.backends.gguf_header import NFC, NORMALIZER, STRING, reading
from edgedc.errors import EdgedcError, InputError, MissingExtra
from edgedc.files import beside, read_object

from .vocab_bpe import normalizer_of

SCRIPT = "convert_hf_to_gguf.py"
# Families whose further layers, for drafting tokens, transformers leaves out, and the converter insists on unless told.
_DRAFTING = ("qwen3_5", "qwen3_next")
# What of llama.cpp is kept: about 2 of the archive's 77 MB.
KEPT = (SCRIPT, "convert_lora_to_gguf.py", "conversion", "gguf-py", "LICENSE")
# The sha256 of llama-cpp-python's source distribution at the package index, by version.
PINNED = {"0.3.36": "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"}


def find_converter(given: Path | None, say: Callable[[str], None]) -> Path:
    """The folder of llama.cpp that holds its converter: `given`, or that of the llama-cpp-python that is installed.

    The latter is fetched once into the user's cache, which `say` is told. Raises InputError when `given` is not such a
    folder, or when there is no pinned source for what is installed; EdgedcError when the source cannot be fetched.
    """
    if given is not None:
        if not (given / SCRIPT).is_file():
            raise InputError(f"--llama-cpp {given}: no {SCRIPT} in it; name a checkout of llama.cpp")
        return given
    try:
        version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtra("llama-cpp-python", "export") from error
    if version not in PINNED:
        raise InputError(
            f"llama-cpp-python {version} is installed, whose source is not pinned here ({', '.join(PINNED)} is); name "
            "a checkout of llama.cpp with  --llama-cpp DIR"
        )
    folder = _cache() / f"llama.cpp-{version}"
    if not (folder / SCRIPT).is_file():
        say(f"fetching llama.cpp's converter, once: the source of llama-cpp-python {version} (77 MB), into {folder}")
        fetch(version, folder)
    return folder


def convert_with_llama_cpp(model: Path, out: Path, kind: str, llama_cpp: Path) -> None:
    """Write `out` in f32, f16 or bf16, or nothing. What the converter says on stderr is shown as it is.

    Raises EdgedcError when the converter fails, as it does for an architecture or a tokenizer unknown to it.
    """
    environment = {key: value for key, value in os.environ.items() if key != "NO_LOCAL_GGUF"}
    environment |= {"HF_HUB_OFFLINE": "1"}  # everything it needs is in the model's folder
    with beside(out) as path:
        command = [sys.executable, str(llama_cpp / SCRIPT), str(model), "--outfile", str(path), "--outtype", kind]
        if str(read_object(model / "config.json").get("model_type")).startswith(_DRAFTING):
            command.append("--no-mtp")
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, env=environment, check=False).returncode
        if code or not path.is_file():
            raise EdgedcError(f"{model}: llama.cpp's own converter cannot convert it (exit code {code}); see above")
        if _composes(model):
            _add_normalizer(path)


def _composes(model: Path) -> bool:
    """Whether it has a byte-level tokenizer that brings text into NFC, which llama.cpp's converter leaves unsaid."""
    path = model / "tokenizer.json"
    described = read_object(path) if path.is_file() else {}
    bpe = described.get("model") or {}
    return bpe.get("type") == "BPE" and not bpe.get("byte_fallback") and normalizer_of(described) == [{"type": NFC}]


def _add_normalizer(path: Path) -> None:
    """Put edgedc's own key behind the others. Offsets of tensors count from the end of the header."""
    with reading(path) as reader:
        tensors, values = reader.start()
        alignment = 32
        for _ in range(values):
            name, kind = reader.text(), reader.take("I")
            value = reader.value(kind, keep=False)
            alignment = value if name == "general.alignment" else alignment
        infos = reader.at
        for _ in range(tensors):
            reader.entry()
        end = reader.at
    key, value = NORMALIZER.encode(), NFC.encode()
    added = struct.pack(f"<Q{len(key)}sIQ{len(value)}s", len(key), key, STRING, len(value), value)
    with path.open("rb") as old, beside(path) as longer, longer.open("wb") as new:
        new.write(old.read(16) + struct.pack("<Q", values + 1))
        old.seek(24)
        new.write(old.read(infos - 24) + added + old.read(end - infos))
        old.seek(-end % alignment, os.SEEK_CUR)
        new.write(bytes(-new.tell() % alignment))
        shutil.copyfileobj(old, new, 1 << 20)


def _cache() -> Path:
    """Where the XDG base directory specification puts it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgedc"


def fetch(version: str, folder: Path, kept: Sequence[str] = KEPT) -> None:
    """Fill `folder` with these parts of llama.cpp, or leave nothing: it is made beside and renamed."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            archive = _download(version, Path(scratch))
            staged = Path(scratch) / folder.name
            _extract(archive, staged, kept)
            shutil.rmtree(folder, ignore_errors=True)  # one without the converter
            staged.rename(folder)
    except OSError as error:
        if (folder / SCRIPT).is_file():  # another process was faster
            return
        raise EdgedcError(f"{folder}: llama.cpp's converter cannot be put there: {error}") from error


def _download(version: str, scratch: Path) -> Path:
    """The archive, by pip, which compares the hash before it opens the archive."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"llama-cpp-python=={version} --hash=sha256:{PINNED[version]}\n", "utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
    command += ["--require-hashes", "--dest", str(scratch), "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(scratch.glob("*.tar.gz"))
    if done.returncode or len(archives) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        why = next((line for line in said if "ERROR" in line), said[-1] if said else f"exit code {done.returncode}")
        raise EdgedcError(
            f"llama.cpp's converter cannot be fetched: pip: {why.strip()[:200]}; name a checkout with  --llama-cpp DIR"
        )
    return archives[0]


def _extract(archive: Path, folder: Path, kept: Sequence[str]) -> None:
    with tarfile.open(archive, "r|gz") as members:  # one pass: seeking in 77 MB of gzip is slow
        for member in members:
            parts = PurePosixPath(member.name).parts[1:]
            if not member.isfile() or parts[:2] != ("vendor", "llama.cpp") or parts[2] not in kept or ".." in parts:
                continue
            path = folder.joinpath(*parts[2:])
            path.parent.mkdir(parents=True, exist_ok=True)
            content = members.extractfile(member)
            assert content is not None  # it is a file
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)
    if not (folder / SCRIPT).is_file():
        raise EdgedcError(f"{archive.name}: no vendor/llama.cpp/{SCRIPT} in it; name a checkout with  --llama-cpp DIR")
