"""The training loop, the same for every phase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from training.data import Batch, loader
from training.measure import Figures


@dataclass(frozen=True, slots=True)
class Plan:
    """One phase: how long, how fast, and how much it sees at a time."""

    num_steps: int
    peak: float  # learning rate
    floor: float  # learning rate at the end
    num_pictures: int  # a batch
    warm_up: int = 300  # steps
    hold: int = 0  # steps until the decay, if more than `warm_up`
    look_every: int = 1000  # steps
    dtype: torch.dtype = torch.float32  # of matrix products, and of what they make; weights are float32

    def scaled(self, scale: float) -> Plan:
        """With so many times the steps."""
        return replace(
            self,
            num_steps=max(1, round(self.num_steps * scale)),
            warm_up=max(1, round(self.warm_up * scale)),
            hold=round(self.hold * scale),
        )

    def rate(self, step: int) -> float:
        """Learning rate of step 1, 2, ...: linear warm-up, the peak for a while, linear decay."""
        if step < self.warm_up:
            return self.peak * step / self.warm_up
        start = max(self.warm_up, self.hold)
        done = max(0, step - start) / max(1, self.num_steps - start)
        return self.peak + (self.floor - self.peak) * done


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Weight decay 0.05, as the authors, but not on biases and norms."""
    decayed = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def train(
    name: str,
    plan: Plan,
    model: nn.Module,
    batches: Dataset[Batch],
    loss_of: Callable[[Batch], Tensor],
    look: Callable[[], Figures],
    file: Path,
) -> None:
    """Train `model` by `plan`, and save it into `file`; print its figures on held-out pictures now and then. As often,
    it leaves beside that file how far it has come, and goes on from there."""
    optimizer, part = adamw(model), file.with_suffix(".part")
    done = resume(model, optimizer, part)
    progress = tqdm(loader(batches, plan.num_steps, done), desc=name, total=plan.num_steps, initial=done, mininterval=2)
    smooth = 0.0
    for step, batch in enumerate(progress, start=done + 1):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.dtype is torch.bfloat16):
            loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        smooth += (loss.item() - smooth) / min(step - done, 100)
        progress.set_postfix(loss=f"{smooth:.3f}", refresh=False)
        if step % plan.look_every == 0 or step == plan.num_steps:
            figures = ", ".join(f"{key} {value:.3f}" for key, value in look().items())
            tqdm.write(f"{name}, step {step}: loss {smooth:.3f}, {figures}")
            keep(model, optimizer, step, part)
    save(model.state_dict(), file)
    part.unlink(missing_ok=True)


def keep(model: nn.Module, optimizer: torch.optim.Optimizer, step: int, file: Path) -> None:
    """All that the next step depends on."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    save({**state, "random": torch.get_rng_state()}, file)


def save(state: Any, file: Path) -> None:
    """A run that is broken off while this is written finds the file of before."""
    new = file.with_suffix(".new")
    torch.save(state, new)
    new.rename(file)


def resume(model: nn.Module, optimizer: torch.optim.Optimizer, file: Path) -> int:
    """The step up to which `file` has come; 0 if there is no such file."""
    if not file.exists():
        return 0
    state = torch.load(file, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return int(state["step"])


def load(model: nn.Module, file: Path) -> bool:
    """Load `file` into `model`. False if there is no such file."""
    if not file.exists():
        return False
    model.load_state_dict(torch.load(file, weights_only=True))
    return True
