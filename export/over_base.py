"""A model folder of a base's weights and an adapter's tokenizer, template and manifest, made of links.

It is what was trained, but for the adapter's own weights, which `with_adapter` adds to each tensor as it is read: so a
model of 6 GB is exported with its adapter without a merged folder of 6 GB.
"""

import dataclasses
from pathlib import Path

from edgedc.bundle import CHAT_TEMPLATE, MANIFEST, check_model_folder, read_manifest, write_manifest
from edgedc.errors import InputError

_OF_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", CHAT_TEMPLATE)
_OF_BASE = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")


def over_base(base: Path, adapter: Path, folder: Path) -> Path:
    """Make it in `folder`, which exists, and return it. Raises InputError for what is not a base or not an adapter.

    The tokenizer is the adapter's own where it has one, as `edgedc train` saves it, else the base's.
    """
    check_model_folder(base)
    if not (adapter / "adapter_config.json").is_file():
        raise InputError(f"{adapter}: no adapter_config.json: not an adapter; make one with  edgedc train")
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
        write_manifest(folder, dataclasses.replace(manifest, kind="model"))
    return folder
