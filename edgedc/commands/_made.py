"""What there is already of a chain of verbs: which folders need not be made again, which rows are this recipe's."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgedc.adapter import WEIGHTS, base_sha256
from edgedc.bundle import MANIFEST, Manifest, hashes_read, read_manifest
from edgedc.catalogue import find_weights
from edgedc.commands._verbs import run, values
from edgedc.files import read_rows, sha256_of
from edgedc.flags import as_json
from edgedc.tasks import Selection, load_examples
from edgedc.workshop import workshop

# The files beside its input that have a part in what a verb makes, whose hashes are in the manifest's recipe as `read`.
READ_TOO = {"train": ("held_out",), "export": ("calibrate", "prompts")}

Values = dict[str, Any]  # what a verb is given, by the names of its parameters; see _verbs.values


def is_made(verb: str, folder: Path, wanted: Values) -> bool:
    """Whether the folder's manifest says that this verb made it, of these inputs and with these settings.

    A setting that the manifest does not record has no part in the result, nor has one of WITHOUT_EFFECT.
    """
    if not (folder / MANIFEST).is_file():
        return False
    manifest = read_manifest(folder)
    recorded = manifest.recipe if verb == "train" else manifest.recipe.get(verb, {})
    settings = as_json(wanted)
    without_effect = workshop("train.settings").WITHOUT_EFFECT if verb == "train" else ()
    known = (recorded.keys() & settings.keys()).difference(without_effect)
    same = bool(known) and all(recorded[name] == settings[name] for name in known)
    read = hashes_read({name: wanted[name] for name in READ_TOO.get(verb, ())})
    return same and recorded.get("read", {}) == read and _SAME_INPUT[verb](manifest, wanted)


def _same_rows(manifest: Manifest, wanted: Values) -> bool:
    base = find_weights(Path(wanted["base"]))
    same_base = bool(wanted["from_scratch"]) or not base.is_dir() or manifest.base_sha256 == base_sha256(base)
    return same_base and [data.sha256 for data in manifest.data] == [sha256_of(wanted["data"])]


def _same_adapter(manifest: Manifest, wanted: Values) -> bool:
    return bool(manifest.recipe["merge"].get("adapter_sha256") == sha256_of(wanted["adapter"] / WEIGHTS))


def _same_model(manifest: Manifest, wanted: Values) -> bool:
    model = workshop("export.staging").bundle_manifest(wanted["model"], manifest.name, None)
    return bool(manifest.weights_sha256 == model.weights_sha256)


_SAME_INPUT: dict[str, Callable[[Manifest, Values], bool]] = {
    "train": _same_rows,
    "merge": _same_adapter,
    "export": _same_model,
}


def make(*words: object) -> bool:
    """Run a verb that makes the folder at the end of `words`; False where it is there, made of the same by the same."""
    verb, folder = str(words[0]), Path(str(words[-1]))
    if is_made(verb, folder, values(*words)):
        click.echo(f"\n{folder}: there already, made of the same inputs with the same settings", err=True)
        return False
    if verb == "export" and (folder / MANIFEST).is_file() and read_manifest(folder).kind == "bundle":
        shutil.rmtree(folder)  # of another model or of other settings, and `edgedc export` adds to a bundle
    run(*words)
    return True


def keys_of(verb: str, wanted: Values) -> set[str]:
    """The keys of all rows that `edgedc teach` or `edgedc screen` would ask for, given these."""
    return _taught(wanted) if verb == "teach" else _screened(wanted)


def _taught(wanted: Values) -> set[str]:
    module = workshop("train.teaching.teach")
    settings = settings_of(module.TeachSettings, wanted)
    examples = load_examples(settings_of(Selection, wanted))
    teacher = workshop("train.teaching.teachers").find_teacher(settings)
    return {draw.key for draw in module.plan(examples, teacher, settings)()}


def _screened(wanted: Values) -> set[str]:
    module = workshop("train.teaching.screen")
    job = module.find_job(settings_of(module.ScreenSettings, wanted))
    unusable = workshop("train.sets.pairs").unusable
    return {job.trial(row).key for row in read_rows(wanted["demonstrations"]) if not unusable(row)}


def settings_of(kind: Any, wanted: Values) -> Any:
    """The settings of this kind among what a verb is given."""
    return kind(**{f.name: wanted[f.name] for f in dataclasses.fields(kind) if f.name in wanted})
