"""A model folder of a base's weights and an adapter's tokenizer, template and manifest, made of links.

It is what was trained, but for the adapter's own weights, which `with_adapter` adds to each tensor as it is read: so a
model of 6 GB is exported with its adapter without a merged folder of 6 GB.
"""

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgedc.adapter import check_base, check_files
from edgedc.bundle import CHAT_TEMPLATE, MANIFEST, check_model_folder, read_manifest, write_manifest
from edgedc.errors import EdgedcError, InputError
from edgedc.files import scratch_folder

_OF_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", CHAT_TEMPLATE)
_OF_BASE = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")


@contextmanager
def over_base(base: Path, adapter: Path) -> Iterator[Path]:
    """The folder, until the block ends. Raises InputError for what is not a base or not an adapter.

    The tokenizer is the adapter's own where it has one, as `edgedc train` saves it, else the base's. An error that
    names a file of the folder is told with the file that it stands for.
    """
    with scratch_folder(Path(tempfile.gettempdir()) / "edgedc-base") as folder:
        _fill(folder, base, adapter)
        try:
            yield folder
        except EdgedcError as error:
            text = str(error)
            for link in folder.iterdir():
                text = text.replace(str(link), str(link.resolve()) if link.is_symlink() else str(adapter / link.name))
            error.args = (text.replace(str(folder), str(base)),)
            raise


def _fill(folder: Path, base: Path, adapter: Path) -> None:
    check_model_folder(base)
    check_files(adapter)
    names = [path.name for pattern in _OF_BASE for path in base.glob(pattern)]
    tokenizer = adapter if (adapter / "tokenizer.json").is_file() else base
    for origin, wanted in ((base, names), (tokenizer, _OF_TOKENIZER)):
        for name in wanted:
            if (origin / name).is_file():
                (folder / name).symlink_to((origin / name).resolve())
    if (adapter / MANIFEST).is_file():
        manifest = read_manifest(adapter)
        if manifest.kind != "adapter":
            raise InputError(f"{adapter}: a {manifest.kind}, not an adapter")
        check_base(adapter, base)
        write_manifest(folder, dataclasses.replace(manifest, kind="model"))
