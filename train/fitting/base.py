"""The model that is trained: a base with an adapter on it, a base as a whole, or a new one."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file, is_flash_attn_2_available
from transformers.utils.logging import disable_progress_bar

from edgedc.adapter import base_sha256
from edgedc.backends.chat import check_heard
from edgedc.backends.transformers import as_its_file_has_it, cap_attention, check_saved_by, hushed
from edgedc.bundle import check_layers, check_model_folder
from edgedc.catalogue import find_weights
from edgedc.errors import InputError, need
from edgedc.files import read_object, sha256_of

from ..settings import TrainSettings
from .scratch import make_model, make_tokenizer

# The rows that a from-scratch tokenizer is fitted to; more change next to nothing.
_TOKENIZER_ROWS = 20_000
_SHORT = 640  # tokens of a row


@dataclass(frozen=True)
class Base:
    """What there is to tell of a model before it is trained.

    `name` is for the manifest. `context` is the most tokens that it reads at once, `parameters` how many weights it
    has, with those of an adapter that was put on it. `revision` is the hub's, the hashes are of a folder's weights and
    config.json; "" where there is no such thing.
    """

    name: str
    context: int
    parameters: int
    revision: str = ""
    sha256: str = ""
    config_sha256: str = ""


def check_tuning(settings: TrainSettings) -> None:
    """Raises InputError where this machine cannot do what `--tuning` asks for, or Muon not what is to be trained."""
    if settings.optimizer == "muon" and (settings.fsdp or not (settings.from_scratch or settings.tuning == "full")):
        raise InputError(
            "--optimizer muon is for whole matrices, with --tuning full or --from-scratch and without --fsdp; "
            "use adamw here"
        )
    if settings.tuning != "qlora":
        return
    if settings.from_scratch:
        raise InputError(
            "--tuning qlora: there is no base to hold in 4 bits with --from-scratch; leave one of them out"
        )
    need("bitsandbytes", "bitsandbytes", "qlora")


def make_trainee(
    settings: TrainSettings, texts: Iterable[str], *, weights: bool = True
) -> tuple[PreTrainedTokenizerBase, Any, Base]:
    """(tokenizer, model ready to be trained, what it is made from).

    `texts` is what the tokenizer of a model from scratch is fitted to. Raises InputError as `load_base` does, which
    also says what a base is without `weights`; they are not hashed then.
    """
    if settings.from_scratch:
        few = [text for text, _ in zip(texts, range(_TOKENIZER_ROWS), strict=False)]
        tokenizer: PreTrainedTokenizerBase = make_tokenizer(few, settings.vocabulary)
        made = make_model(tokenizer, settings.from_scratch, settings.seed)
        if chosen := attention(settings):
            made.set_attn_implementation(chosen)
        return tokenizer, made, _base(f"scratch-{settings.from_scratch}", made)
    folder, name = find_base(settings.base)
    # An optimiser that changes weights by a millionth needs float32 to change them in; what is frozen does not.
    dtype = torch.float32 if settings.tuning == "full" or not uses_bf16(settings) else base_dtype()
    tokenizer, model = load_base(
        folder,
        dtype=dtype,
        quantised=settings.tuning == "qlora",
        divided=settings.fsdp,
        attention=attention(settings),
        weights=weights,
    )
    torch.manual_seed(settings.seed)
    if settings.tuning != "full":
        model = with_adapter(model, settings)
    revision = "" if Path(folder).is_dir() else files_of(folder).name
    return tokenizer, model, _base(name, model, revision, Path(folder) if weights else None)


def _base(name: str, model: Any, revision: str = "", folder: Path | None = None) -> Base:
    """Raises InputError for a model that does not say how much it reads."""
    context = getattr(model.config, "max_position_embeddings", None)
    if not context:
        raise InputError(f"{name}: its config.json has no max_position_embeddings, its longest text; take another base")
    hashes = (base_sha256(folder), sha256_of(folder / "config.json")) if folder and folder.is_dir() else ()
    return Base(name, int(context), model.num_parameters(), revision, *hashes)


def find_base(name: str) -> tuple[str, str]:
    """(what transformers can load, the name for the manifest) of a base: a folder, shipped, pulled, or a hub id."""
    folder = find_weights(Path(name))
    if folder.exists():
        check_model_folder(folder)
        check_saved_by(folder)
        return str(folder), name
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return name, name
    raise InputError(f"{name}: no such base model: give a folder, a hub id (owner/name) or a name in  edgedc models")


def write_student(folder: Path, tokenizer: PreTrainedTokenizerBase, model: Any) -> None:
    """What a student of this base will be, as `edgedc merge` writes it, but that its weights are a hole in the file."""
    student = model.get_base_model() if isinstance(model, PeftModel) else model
    student.config.architectures = [type(student).__name__]
    for part in (student.config, student.generation_config, tokenizer):
        part.save_pretrained(folder)
    header, end = {}, 0
    for name, weight in student.named_parameters():  # what is tied, once
        if ".lora_" in name:
            continue
        places = [end, end := end + 2 * weight.numel()]
        header[name.replace(".base_layer", "")] = {"dtype": "F16", "shape": [*weight.shape], "data_offsets": places}
    described = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(described).to_bytes(8, "little") + described)
        file.truncate(8 + len(described) + end)


def files_of(name: str, revision: str = "") -> Path:
    """The folder with the files of a base that was loaded: its own, or in the hub's cache that of its revision."""
    if Path(name).is_dir():
        return Path(name)
    return Path(str(cached_file(name, "config.json", revision=revision or None, local_files_only=True))).parent


def load_base(
    name: str,
    revision: str = "",
    *,
    dtype: torch.dtype | None = None,
    quantised: bool = False,
    divided: bool = False,
    attention: str | None = None,
    weights: bool = True,
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and model, from safetensors, no code of the model's own; in `base_dtype()` unless `dtype` is given.

    `revision` is the hub's, its newest where there is none. `quantised`: linear layers in 4 bits, by bitsandbytes,
    and `divided`: as FSDP can divide them between processes.
    `attention` is transformers' name of an implementation. Without `weights` the model has their names and shapes
    alone, which takes no time, and what is wrong with a base is said all the same.
    """
    how: dict[str, Any] = {"dtype": dtype or base_dtype(), "use_safetensors": True, "attn_implementation": attention}
    if not weights:
        how |= {"device_map": "meta"}
    elif quantised:
        how |= {"quantization_config": four_bits(how["dtype"], divided=divided), "device_map": {"": device()}}
    disable_progress_bar()
    at = {"revision": revision} if revision else {}
    which = "@".join([name, *at.values()])
    try:
        with hushed():
            tokenizer = AutoTokenizer.from_pretrained(name, **at)
        tokenizer = as_its_file_has_it(tokenizer, files_of(name, revision))
        model, read = AutoModelForCausalLM.from_pretrained(name, **at, **how, output_loading_info=True)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # these packages raise anything of what is damaged or unknown to them
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{which}: cannot be loaded as a base model: {reason}{_quoted(Path(name))}") from error
    if read["missing_keys"]:  # transformers would draw them by lot
        raise InputError(f"{which}: its weights lack {min(read['missing_keys'])}: copy or download the model again")
    if not Path(name).is_dir():  # `find_base` has looked into a folder
        check_layers(files_of(name, revision))
        check_saved_by(files_of(name, revision))
    model = text_part(model)
    cap_attention(model)
    if quantised and model.device.type == "cpu":
        _settle_on_cpu(model)
    if not tokenizer.chat_template:
        raise InputError(f"{name}: its tokenizer has no chat template; take the instruct version of the model")
    check_heard(partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True), name)
    if tokenizer.eos_token_id is None:
        raise InputError(f"{name}: its tokenizer has no eos_token, which ends a reply; take a model with one")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model


def text_part(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, or of one that sees and hears too the part that reads and writes, as a model of its own."""
    config = model.config.get_text_config()
    if config is model.config:
        return model
    with torch.device("meta"):
        part = AutoModelForCausalLM.from_config(config, attn_implementation=model.config._attn_implementation)
    place = next(name for name, layers in part.named_modules() if layers is part.get_decoder())
    part.set_submodule(place, model.get_decoder())
    part.set_output_embeddings(model.get_output_embeddings())
    part.generation_config = model.generation_config
    part.is_loaded_in_4bit = getattr(model, "is_loaded_in_4bit", False)  # by which `with_adapter` prepares it
    return part


def _quoted(folder: Path) -> str:
    """What most often keeps a config.json from being read, and what an error in Python's words hardly tells."""
    config = read_object(folder / "config.json") if (folder / "config.json").is_file() else {}
    texts = [key for key, value in config.items() if isinstance(value, str) and value.strip("-.").isdigit()]
    return f" ({folder / 'config.json'} has text for a number: {', '.join(texts)})" if texts else ""


def with_adapter(model: PreTrainedModel, settings: TrainSettings) -> Any:
    """A LoRA on every linear layer but the output layer, which in small models is the embedding too.

    Raises InputError for a rank that no layer can make use of: each has the model's width on one side at least.
    """
    width = model.get_input_embeddings().weight.shape[1]
    if settings.lora_rank > width:
        raise InputError(f"--lora-rank {settings.lora_rank}: must be at most {width}, the width of the base")
    if getattr(model, "is_loaded_in_4bit", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # the Trainer turns it on
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
        # Mamba's kernels for GPUs multiply with that weight themselves, and an adapter would have no part in it.
        exclude_modules=[
            f"{name}.out_proj" for name, layer in model.named_modules() if hasattr(layer, "ssm_state_size")
        ],
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    # Of itself peft asks the hub for the base's config at every checkpoint, to see whether it had other tokens.
    adapted.save_pretrained = partial(adapted.save_pretrained, save_embedding_layers=False)
    return adapted


def four_bits(dtype: torch.dtype, *, divided: bool = False) -> BitsAndBytesConfig:
    """NF4 with double quantisation (QLoRA, arXiv 2305.14314); `dtype` is what is multiplied in.

    accelerate leaves whole what FSDP would have to divide in bytes, so they are `divided` in numbers of that type.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if divided else torch.uint8,
    )


def _settle_on_cpu(model: PreTrainedModel) -> None:
    """Have a model in 4 bits stay as it is, and exact, when it is measured on a CPU; and let go of its file.

    bitsandbytes lays weights out anew for bfloat16 when they are first used without gradients, where the CPU has
    AVX-512 BF16, and never back: a model measured between two steps would pass on no gradient from then on. And
    tensors taken from a mapped file keep all of it in memory, what 4 bits have replaced included.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.clone()


def base_dtype() -> torch.dtype:
    """What a frozen base is kept in: bfloat16 on a GPU that is made for it, else float32."""
    return torch.bfloat16 if _gpu_has_bf16() else torch.float32


def _gpu_has_bf16() -> bool:
    """PyTorch says of older GPUs too that they support it: they work it out piecemeal, slower than float32."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def uses_bf16(settings: TrainSettings) -> bool:
    """Whether to multiply in bfloat16. `auto` asks this machine; trained weights stay in float32 either way."""
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    if torch.cuda.is_available():
        return _gpu_has_bf16()
    features = getattr(torch.cpu, "get_capabilities", dict)()  # older ones cannot say
    return bool(features.get("avx512_bf16"))


def attention(settings: TrainSettings) -> str | None:
    """transformers' name of an implementation that is better than the usual one here, if any.

    FlashAttention for packed rows where it is installed: it leaves out what other rows' tokens would cost. Not with
    FSDP, as no GPU may then hold the model for `check_packing` to look at it. On a CPU, plain products for short rows:
    PyTorch's kernel takes longer for its gradients than all of those do; their memory grows with the square of the
    length.
    """
    if torch.cuda.is_available():
        packed = settings.packing and not settings.fsdp and uses_bf16(settings)
        return "flash_attention_2" if packed and is_flash_attn_2_available() else None
    return "eager" if not settings.packing and settings.max_length <= _SHORT else None


def device() -> str:
    """Where this process trains."""
    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
