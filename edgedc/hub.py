"""Models from the hub: what to fetch of a repository, fetched at one revision, each file compared with the hub's hash.

It becomes a bundle or a model folder among those that edgedc/catalogue.py knows, with its source in a file beside it.
"""

import errno
import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from edgedc.bundle import MANIFEST, Artifact, Manifest, check_model_folder, now, read_manifest, verify, write_manifest
from edgedc.catalogue import SOURCE, Source, pulled, source_of
from edgedc.errors import EdgedcError, InputError, MissingExtra
from edgedc.files import sha256_of, write_text

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What the hub's library leaves of a file; from 2 on with a number of its own, under which nothing is gone on with.
_LOST = re.compile(r"\.[0-9a-f]{8}\.incomplete$")
_NAME = r"\w(?:[\w.-]*\w)?"
_REPOSITORY = re.compile(f"{_NAME}/{_NAME}")
_QUANTIZATION = re.compile(r"[-._]((?:I?Q\d\w*|F16|BF16|F32))\.gguf$", re.IGNORECASE)
# Of a model folder; nothing that could hold code.
_MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "README.md")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class RemoteFile:
    """`digest` is the hub's: "sha256:..." of a large file, "git:..." (a blob's SHA-1) of a small one."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    name: str
    commit: str
    files: tuple[RemoteFile, ...]


def look_up(wanted: str) -> Repository:
    """A repository of the hub, `OWNER/NAME` or `OWNER/NAME@REVISION`, and the commit that stands for the revision.

    Raises InputError for another form and for what the hub does not have, EdgedcError when it cannot be reached, and
    MissingExtra without huggingface_hub.
    """
    name, _, revision = wanted.partition("@")
    if not _REPOSITORY.fullmatch(name):
        raise InputError(f"{wanted}: not a model of the hub: give OWNER/NAME, or OWNER/NAME@REVISION")
    info = _asked(wanted, lambda hub: hub.HfApi().model_info(name, revision=revision or None, files_metadata=True))
    files = tuple(
        RemoteFile(s.rfilename, s.size or 0, f"sha256:{s.lfs.sha256}" if s.lfs else f"git:{s.blob_id}")
        for s in info.siblings or ()
    )
    for file in files:
        if Path(file.name).is_absolute() or ".." in Path(file.name).parts:
            raise InputError(f"{wanted}: lists {file.name!r}, which is no file inside it")
    return Repository(name, info.sha, files)


def select(repository: Repository, pattern: str | None) -> list[RemoteFile]:
    """What to fetch: a bundle of edgedc's whole, the one GGUF that is there or that `pattern` names, or a model folder.

    Raises InputError when that is nothing, or more than one GGUF.
    """
    names = {file.name for file in repository.files}
    if pattern is None and MANIFEST in names:
        return [file for file in repository.files if not file.name.startswith(".")]
    ggufs = [file for file in repository.files if fnmatch(file.name, pattern or "*.gguf")]
    if pattern and not ggufs:
        raise InputError(f"{repository.name}: no file like {pattern!r}{_there(sorted(names))}")
    if len(ggufs) == 1 and ggufs[0].name.endswith(".gguf"):
        return ggufs
    if ggufs:
        raise InputError(f"{repository.name}: name one GGUF with --file{_there(sorted(f.name for f in ggufs))}")
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise InputError(f"{repository.name}: no bundle, no GGUF and no safetensors in it{_there(sorted(names))}")
    patterns = (*_MODEL_FILES, *_TOKENIZER_FILES)
    return [f for f in repository.files if "/" not in f.name and any(fnmatch(f.name, p) for p in patterns)]


def pull(repository: Repository, files: Sequence[RemoteFile], report: Callable[[str], None]) -> Path:
    """Fetch the files to `pulled()`; the folder that `edgedc decompose --model NAME` finds.

    A killed download goes on with the file that it was at, in the middle of that where the hub's library can, which 2
    cannot. What is there already, of the same commit, is compared with its hashes
    and kept. Raises InputError when another commit of it is there, EdgedcError for a file that is not what the hub said
    or when the disk or the network fails; then nothing stands under the name.
    """
    folder = pulled() / repository.name.rpartition("/")[2]
    if (folder / SOURCE).is_file():
        return _kept(folder, repository, files)
    if folder.exists():
        raise InputError(f"{folder}: exists and was not pulled; move it away")
    stage = folder.with_name(f".{folder.name}.{repository.commit[:12]}")
    try:
        stage.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{stage.parent}: cannot be made: {error.strerror}; set EDGEDC_HOME to another") from error
    needed = missing_bytes(stage, files)
    if (free := shutil.disk_usage(stage).free) < needed:
        raise EdgedcError(f"{stage}: {needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB free: make room")
    hashes = {}
    for file in files:
        report(f"{file.name} ({file.size / 1e6:.1f} MB)")
        hashes[file.name] = _fetch(repository, file, stage)
    shutil.rmtree(stage / ".cache", ignore_errors=True)
    _finish(stage, repository, files, hashes)
    stage.rename(folder)
    return folder


def missing_bytes(stage: Path, files: Sequence[RemoteFile]) -> int:
    """What is still to come, less what came of a file before its download was stopped."""
    begun = sum(path.stat().st_size for path in stage.rglob("*.incomplete") if not _LOST.search(path.name))
    return max(0, sum(f.size for f in files if not (stage / f.name).is_file()) - begun)


def _kept(folder: Path, repository: Repository, files: Sequence[RemoteFile]) -> Path:
    source = source_of(folder)
    assert source is not None
    here = (source.repository, source.revision)
    if here != (repository.name, repository.commit) or set(source.files) != {file.name for file in files}:
        raise InputError(
            f"{folder}: holds {', '.join(source.files)} of {source.repository}@{source.revision[:12]}; remove it to "
            f"pull {repository.name}@{repository.commit[:12]}"
        )
    for name, expected in source.files.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != expected:
            raise InputError(f"{folder / name}: changed since it was pulled; remove {folder} and pull it again")
    return folder


def _fetch(repository: Repository, file: RemoteFile, stage: Path) -> str:
    """The sha256 of the file, which is the hub's."""
    path = stage / file.name
    if not path.is_file() or not _is(file, path):
        _asked(
            f"{repository.name}/{file.name}",
            lambda hub: hub.hf_hub_download(
                repository.name, file.name, revision=repository.commit, local_dir=stage, force_download=path.is_file()
            ),
        )
    if not _is(file, path):
        path.unlink(missing_ok=True)
        raise EdgedcError(f"{repository.name}/{file.name}: what came is not what the hub lists ({file.digest[:20]}...)")
    return sha256_of(path)


def _is(file: RemoteFile, path: Path) -> bool:
    kind, _, digest = file.digest.partition(":")
    if kind == "sha256":
        return sha256_of(path) == digest
    content = path.read_bytes()  # git's name of a blob, https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == digest


def _finish(stage: Path, repository: Repository, files: Sequence[RemoteFile], hashes: dict[str, str]) -> None:
    """Check that it can be used, and write what edgedc needs beside it."""
    try:
        if (stage / MANIFEST).is_file():
            for artifact in read_manifest(stage).artifacts:
                verify(stage, artifact)
        elif files[0].name.endswith(".gguf"):
            _as_bundle(stage, repository, files[0], hashes[files[0].name])
        else:
            check_model_folder(stage)
    except InputError:
        shutil.rmtree(stage, ignore_errors=True)  # fetched whole, it would be refused as often as it is fetched
        raise
    source = Source(repository.name, repository.commit, hashes, now())
    write_text(stage / SOURCE, json.dumps(asdict(source), indent=2) + "\n")


def _as_bundle(stage: Path, repository: Repository, file: RemoteFile, sha256: str) -> None:
    """A bundle of somebody else's GGUF: its chat template is in the file, and it is asked with the long prompt."""
    from edgedc.backends.gguf_header import check_header

    check_header(stage / file.name)
    found = _QUANTIZATION.search(file.name)
    artifact = Artifact(
        (file.name,), "gguf", found[1].lower() if found else "gguf", (stage / file.name).stat().st_size, (sha256,)
    )
    manifest = Manifest(
        kind="bundle",
        name=repository.name.rpartition("/")[2],
        base=repository.name,
        base_revision=repository.commit,
        method="untrained",
        prompt_style="instruct-1",
        artifacts=(artifact,),
    )
    write_manifest(stage, manifest)


def _asked(what: str, ask: Callable[[Any], Any]) -> Any:
    """What the hub's library says, its errors as ours. It reads HF_ENDPOINT and HF_TOKEN by itself."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ModuleNotFoundError as error:
        raise MissingExtra("huggingface_hub", "hub") from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Not enough free disk space")  # what follows says it
            return ask(huggingface_hub)
    except errors.GatedRepoError as error:
        raise InputError(
            f"{what}: the hub gives it only to people who accepted its terms: accept them on its page, and set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{what}: the hub has no such revision of it") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{what}: the hub has no such model, or not for you: check the name, or set HF_TOKEN"
        ) from error
    except Exception as error:  # of requests, httpx or httpx2: the library's versions each have their own
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            mend = "make room, and pull it again: what came whole is kept"
            raise EdgedcError(f"{what}: cannot be written: {error.strerror}; {mend}") from error
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise InputError(f"{what}: the hub refuses it ({status}): check HF_TOKEN") from error
        said = (str(error).strip() or repr(error)).splitlines()[0]
        raise EdgedcError(f"{what}: the hub cannot be reached, or failed: {said}") from error


def _there(names: Sequence[str]) -> str:
    return f"; there are {', '.join(names[:12])}" + (f" and {len(names) - 12} more" if len(names) > 12 else "")
