"""Training loops of several single-thread processes: mean gradients, EMA, checkpoints, a schedule by minutes."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Schedule = Callable[[float], float]
"""Learning-rate factor for a progress of 0..1."""


def flat_then_linear(start_of_decay: float, last: float = 0.02) -> Schedule:
    """Full rate up to `start_of_decay`, then straight down to `last`."""
    return lambda progress: 1.0 if progress < start_of_decay else max(last, (1 - progress) / (1 - start_of_decay))


def _worker(rank: int, world: int, meeting: str, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world, timeout=timedelta(minutes=60)
    )
    try:
        function(rank, world, *arguments)
    finally:
        torch.distributed.destroy_process_group()


def run_processes(world: int, function: Callable[..., None], *arguments: Any) -> None:
    """Runs `function(rank, world, *arguments)` in `world` processes of one thread each, and waits for them."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        torch.multiprocessing.spawn(_worker, (world, meeting, function, arguments), nprocs=world)  # type: ignore[attr-defined,no-untyped-call]


def save_atomically(value: object, path: Path) -> None:
    """Writes the file under another name first: a program that dies meanwhile leaves the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(value, partial)
    partial.replace(path)


def save_folder(path: Path, save: Callable[[Path], object]) -> None:
    """Lets `save` write a folder under another name, then gives it its name: it is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    save(partial)
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


class Trainer:
    """Optimises the parameters of some modules; each process gives its own part of the batch.

    All parameters live in one flat float32 tensor, and so do their gradients: one all-reduce, one optimiser step and
    one EMA step then serve them all. Minutes are those that a process of one thread computes, so that a machine with
    other work to do, or a pause, takes nothing from the training. The last number of the gradient buffer carries the
    progress (0..1), so that every process sees the same mean of it and they agree on rate and end.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        *,
        rank: int,
        world: int,
        minutes: float,
        rate: float,
        schedule: Schedule,
        ema_decay: float,
        checkpoint: Path,
        seed: int,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
    ) -> None:
        self.rank, self.world, self.seconds, self.rate, self.schedule = rank, world, minutes * 60, rate, schedule
        self.ema_decay, self.checkpoint = ema_decay, checkpoint
        parameters = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
        total = sum(parameter.numel() for parameter in parameters)
        self.values = nn.Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
        self.gradients = torch.zeros(total + 1)
        start = 0
        for parameter in parameters:
            end = start + parameter.numel()
            parameter.data = self.values.data[start:end].view(parameter.shape)
            parameter.grad = self.gradients[start:end].view(parameter.shape)
            start = end
        self.values.grad = self.gradients[:total]
        self.ema = self.values.detach().clone()
        self.optimizer = torch.optim.AdamW([self.values], lr=rate, betas=betas, weight_decay=weight_decay, fused=True)
        self.steps, self.seen, self.elapsed, self.progress = 0, 0, 0.0, 0.0
        self.facts: dict[str, Any] = {}
        if checkpoint.exists():
            self._restore(torch.load(checkpoint, weights_only=True))
        # A resumed run draws other numbers than the stretch before it did, but the same each time it is resumed here.
        self.generator = torch.Generator().manual_seed((seed * 1_000_003 + self.steps) * 64 + rank)
        torch.manual_seed((seed * 1_000_033 + self.steps) * 64 + rank)
        self._last, self._saved = time.process_time(), time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        self.values.data.copy_(state["values"])
        self.ema.copy_(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps, self.seen, self.elapsed = state["steps"], state["seen"], state["elapsed"]
        self.progress, self.facts = min(self.elapsed / self.seconds, 1.0), state["facts"]

    def save(self) -> None:
        """Writes the checkpoint (process 0 only)."""
        if self.rank == 0:
            names = ("ema", "steps", "seen", "elapsed", "facts")
            state = {name: getattr(self, name) for name in names}
            save_atomically(
                {**state, "values": self.values.data, "optimizer": self.optimizer.state_dict()}, self.checkpoint
            )
        self._saved = time.monotonic()

    def save_every(self, minutes: float) -> bool:
        """Saves if the last save is that long ago; True if it did."""
        due = time.monotonic() - self._saved > minutes * 60
        if due:
            self.save()
        return due

    @property
    def running(self) -> bool:
        """True until the planned minutes are computed."""
        return self.progress < 1

    def step(self, loss: Tensor, samples: int) -> None:
        """One step down the mean gradient of all processes; `samples` is what this process's loss was taken over."""
        self.gradients.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        now = time.process_time()
        self.elapsed, self._last = self.elapsed + now - self._last, now
        self.gradients[-1] = self.elapsed / self.seconds
        if self.world > 1:
            torch.distributed.all_reduce(self.gradients)
            self.gradients /= self.world
        self.progress = float(self.gradients[-1])
        gradient = self.gradients[:-1]
        norm = float(gradient.norm())
        gradient *= min(1.0, 1.0 / (norm + 1e-6))
        warm = min(1.0, (self.steps + 1) / 100)
        self.optimizer.param_groups[0]["lr"] = self.rate * warm * self.schedule(self.progress)
        self.optimizer.step()
        self.steps += 1
        self.seen += samples * self.world
        # A young average forgets faster, else it would still hold the random start.
        decay = min(self.ema_decay, (1 + self.steps) / (10 + self.steps))
        self.ema.lerp_(self.values.data, 1 - decay)

    def use_ema(self) -> None:
        """Puts the averaged parameters into the modules (for good: for the end of training)."""
        self.values.data.copy_(self.ema)
