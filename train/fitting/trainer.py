"""transformers' Trainer with batches, loss, log, measurements and checkpoints of its own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import save_fsdp_model
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from edgedc.errors import EdgedcError

from ..sets.pairs import Pair
from ..settings import TrainSettings
from .checkpoints import PARTIAL, begin, finish, latest, prune, step_of
from .compiling import compile_layers
from .data import Encoded
from .optimizer import muon
from .packing import Batches, completion_loss, packed, padded
from .processes import from_first
from .progress import Meter, Progress
from .validation import decomposition_figures, mean_loss

LOG_EVERY = 10  # steps


@dataclass(frozen=True)
class HeldOut:
    """Rows to measure on. `pairs` and `asked` are those that are decomposed; none where no decomposer is trained."""

    rows: Sequence[Encoded] = ()
    pairs: Sequence[Pair] = ()
    asked: Sequence[Encoded] = ()


@dataclass
class Watch:
    """Who is told: `report` a person, `board` a SummaryWriter of TensorBoard, if any."""

    report: Callable[[Progress], None]
    board: Any = None
    meter: Meter = field(default_factory=Meter)


class SftTrainer(Trainer):
    """Trains on `rows`; the whole run is one epoch to transformers, so that resuming never falls between two.

    `state.log_history` is the run's history, that of the run which it goes on from included.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Encoded],
        held: HeldOut,
        settings: TrainSettings,
        args: TrainingArguments,
        watch: Watch,
    ) -> None:
        super().__init__(model=model, args=args, train_dataset=rows)
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # compute_loss divides by num_items_in_batch
        self.settings, self.held, self.watch, self.words = settings, held, watch, tokenizer
        self.work = Path(args.output_dir)
        if settings.compile:
            compile_layers(model)
        self.resumed_at = self._seen_to = 0
        self._tokens = 0  # of this process's rows
        self._unseen: tuple[int, torch.Tensor] | None = None  # a step and its loss, at which nobody has looked

    def go_on(self) -> None:
        """Train from the newest checkpoint in the work folder, or from the start.

        Raises EdgedcError when a loss, held-out ones included, or a weight is no number; the newest checkpoint is then
        the last good one.
        """
        newest = latest(self.work)
        if newest:
            self.resumed_at = step_of(newest)
            self.watch.meter.go_on(TrainerState.load_from_json(str(newest / "trainer_state.json")).log_history)
        self.train(resume_from_checkpoint=str(newest) if newest else None)

    def take_best(self) -> None:
        """Put the weights with the lowest held-out loss in place of the last ones."""
        if best := self.best():
            self._load_from_checkpoint(str(self.work / f"best-{best['step']}"))

    def best(self) -> dict[str, Any] | None:
        """The entry of the history with the lowest held-out loss."""
        measured = [entry for entry in self.state.log_history if "held_out" in entry]
        return min(measured, key=lambda entry: entry["held_out"]["loss"], default=None)

    def shared_weights(self) -> dict[str, torch.Tensor] | None:
        """All weights, brought together for the first process, where the processes share them; else None."""
        return self.accelerator.get_state_dict(self.model) if self.is_fsdp_enabled else None

    def create_optimizer(self, *given: Any) -> Any:
        if self.settings.optimizer == "muon" and self.optimizer is None:
            self.optimizer = muon(
                self.model, self.settings.learning_rate, self.settings.weight_decay, self.args.adam_beta2
            )
        return super().create_optimizer(*given)

    # -- batches and loss

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Not prepared by accelerate, which would deal the batches out again."""
        args, lengths = self.args, [len(row.ids) for row in self.train_dataset]
        batches = Batches(
            lengths,
            self.settings.batch_size,
            args.max_steps,
            self.settings.seed,
            args.gradient_accumulation_steps,
            args.world_size,
            args.process_index,
        )
        return DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self._collate,
            pin_memory=args.dataloader_pin_memory,
            generator=torch.Generator(),  # a loader without one takes from the random numbers of dropout
        )

    def _collate(self, rows: Sequence[Encoded]) -> dict[str, Any]:
        pad = self.words.pad_token_id
        if self.settings.packing:
            one = self.model.config._attn_implementation.startswith("flash")
            batch = packed(rows, pad, one_sequence=one)
        else:
            batch = padded(rows, pad)
        return batch | {"tokens": sum(len(row.ids) for row in rows)}

    def get_batch_samples(self, *given: Any) -> Any:
        batches, items = super().get_batch_samples(*given)
        self._tokens += sum(batch.pop("tokens") for batch in batches)
        return batches, items

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: ARG002
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean over the completion tokens of the whole step: its parts' and processes' too."""
        head, unlikelihood = self.model.get_output_embeddings(), self.settings.unlikelihood
        loss = completion_loss(model, inputs, head, unlikelihood) / num_items_in_batch
        return loss * self.accelerator.num_processes  # over which gradients are averaged

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        # The loss of the step before: to wait for this one's would keep a GPU waiting for its next work.
        self._refuse_nan()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._unseen = (self.state.global_step + 1, loss)
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002
        return 0  # the Trainer counts them at every step, over all parameters, for nobody

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Nothing: tied weights are stored once, and the Trainer warns that the second is missing."""

    # -- between steps

    def _maybe_log_save_evaluate(self, *given: Any, **named: Any) -> None:
        step = self.state.global_step
        new, self._seen_to = step != self._seen_to, step  # the end of the run comes here once more
        last = step >= self.state.max_steps
        measure = new and bool(self.held.rows) and (last or step % self.settings.validation_every == 0)
        save = new and (last or step % self.settings.checkpoint_every == 0)
        self.control.should_evaluate, self.control.should_save = measure, save
        # A log's loss is the mean since the log before. With one at every checkpoint it is the same when resumed.
        self.control.should_log = new and (measure or save or step % LOG_EVERY == 0)
        super()._maybe_log_save_evaluate(*given, **named)

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:  # noqa: ARG002
        if "loss" not in logs and "held_out" not in logs:
            return  # the Trainer's own summary
        self._refuse_nan(weights=True)
        self.watch.meter.tokens = int(self.accelerator.reduce(torch.tensor(self._tokens, device=self.args.device)))
        step, held = self.state.global_step, logs.get("held_out", {})
        passed = step / math.ceil(len(self.train_dataset) / self.settings.batch_size)
        entry = {"step": step, "epoch": round(passed, 4), **logs, **self.watch.meter.read(pace=not held)}
        self.state.log_history.append(entry)
        trained = next(e for e in reversed(self.state.log_history) if "loss" in e)
        eta = self.watch.meter.eta(step - self.resumed_at, self.state.max_steps - step)
        loss, pace, memory = trained["loss"], trained["tokens_per_s"], int(entry["memory_bytes"])
        self.watch.report(Progress(step, self.state.max_steps, loss, pace, memory, eta, held))
        if self.watch.board:
            shown = {k: v for k, v in entry.items() if k not in ("step", "held_out")}
            for name, value in (shown | {f"held_out/{k}": v for k, v in held.items()}).items():
                self.watch.board.add_scalar(name, value, step)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure on the held-out rows; weights with the lowest loss so far are put aside."""
        pad, device = self.words.pad_token_id, self.args.device.type
        # What was compiled is for training: generating would compile every length anew.
        eager = torch.compiler.set_stance("force_eager")
        with eager, torch.autocast(device, torch.bfloat16, enabled=self.args.bf16):
            figures = {"loss": mean_loss(self.model, self.held.rows, pad, self.args.per_device_train_batch_size)}
            if self.held.asked:
                figures |= decomposition_figures(self.model, self.words, self.held.pairs, self.held.asked)
        self.model.train()
        figures = from_first(figures)  # to the last bit, as what is best is decided by each process
        if not math.isfinite(figures["loss"]):
            raise self._diverged(f"the held-out loss is {figures['loss']} at step {self.state.global_step}")
        self.log({"held_out": figures})
        if self.best() is self.state.log_history[-1]:
            self._write(f"best-{self.state.global_step}", self._save_weights)
        return figures

    # -- checkpoints

    def _save_weights(self, to: str) -> None:
        """As `_load_from_checkpoint` reads them, which are not the same files where the processes share the weights."""
        if self.is_fsdp_enabled:
            adapter = isinstance(self.model, PeftModel)
            save_fsdp_model(self.accelerator.state.fsdp_plugin, self.accelerator, self.model, to, adapter_only=adapter)
        else:
            self.save_model(to, _internal_call=True)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """A log comes before, and has looked at the weights."""
        save = super()._save_checkpoint
        self._write(f"checkpoint-{self.state.global_step}", lambda _: save(model, trial))
        if self.is_world_process_zero():
            best = self.best()
            prune(self.work, checkpoint=self.state.global_step, best=best["step"] if best else None)

    def _get_output_dir(self, trial: Any) -> str:  # noqa: ARG002
        return str(self.work / PARTIAL)

    def _write(self, name: str, save: Callable[[str], None]) -> None:
        """Have `save` fill a folder of the work folder; all processes take part, and the first one names it."""
        folder, first = self.work / name, self.is_world_process_zero()
        if first:
            begin(folder)
        self.accelerator.wait_for_everyone()
        save(str(self.work / PARTIAL / name))
        self.accelerator.wait_for_everyone()
        if first:
            finish(folder)

    def _refuse_nan(self, weights: bool = False) -> None:
        """Raises EdgedcError when the last loss, or a weight that is trained, is no number."""
        if self._unseen is not None:
            (step, loss), self._unseen = self._unseen, None
            if not torch.isfinite(loss):
                if step == 1:
                    raise EdgedcError(f"the loss is {loss.item()} before anything was trained: the base is damaged")
                raise self._diverged(f"the loss is {loss.item()} at step {step}")
        if weights:
            trained = [p for p in self.model.parameters() if p.requires_grad]
            mine = [p.to_local() if hasattr(p, "to_local") else p for p in trained]  # of those that are divided, a part
            if not torch.stack([torch.isfinite(p).all() for p in mine]).all():
                raise self._diverged(f"weights are no numbers after step {self.state.global_step}")

    def _diverged(self, what: str) -> EdgedcError:
        newest = latest(self.work)
        kept = f"the last good checkpoint is {newest}" if newest else "no checkpoint had been written yet"
        return EdgedcError(f"{what}: lower --learning-rate; {kept}")
