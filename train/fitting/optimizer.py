"""AdamW, or Muon for the matrices inside the layers and AdamW for the rest."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW, Muon, Optimizer


class Joined(Optimizer):
    """Several optimizers, each with parameters of its own, that schedulers and checkpoints take for one."""

    def __init__(self, *parts: Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        self._link()

    def _link(self) -> None:
        """The same groups and states here and there: what a scheduler changes here, the parts see."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        for part in self.parts:
            self.state.update(part.state)

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        assert closure is None
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._link()


def muon(model: torch.nn.Module, learning_rate: float, weight_decay: float, beta2: float) -> Joined:
    """Muon (Jordan 2024) for the matrices of the layers, at steps as large as AdamW's; AdamW for all other weights."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = [p for name, p in trained.items() if p.ndim == 2 and ".layers." in name]
    ids = {id(p) for p in matrices}
    rest = [p for p in trained.values() if id(p) not in ids]
    # Norms decay with the rest, which transformers' AdamW spares them: the models that ship were trained so.
    return Joined(
        Muon(matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        AdamW(rest, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, beta2)),
    )
