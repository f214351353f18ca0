"""One optimizer step over all ranks, carried out by DeepSpeed.

The engine promises that every rank sees the same outcome of every step, that no update is applied after a
loss or a gradient that is not finite, and that an update that was skipped is reported as such.
"""

import io
import logging
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from longformer.errors import LongformerError
from longformer.training.distributed import Ranks
from longformer.training.engine_settings import EngineSettings, deepspeed_config, parameter_groups
from longformer.training.guards import BadLoss, LossGuard
from longformer.training.objectives import Batch, Objective

if not torch.cuda.is_available():
    os.environ["DS_ACCELERATOR"] = "cpu"  # without it every process guesses, and says so

import deepspeed
import deepspeed.ops

# Half of all start-up: initialize() imports it for any optimizer. Imported here it is paid once, by the
# process that ranks are forked from.
import deepspeed.runtime.zero.muon.muon_optimizer
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from deepspeed.utils import safe_get_full_fp32_param

logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # caused by DeepSpeed
# With a compiler at hand DeepSpeed would spend 40 s building a shared-memory all-reduce for ranks on CPUs,
# after probing all its operators; we use none of them.
deepspeed.ops.__compatible_ops__ = {}

PARAMETER_NAMES = "parameter_names"
"""Entry of a saved state: names of the parameters in the order of the optimizer's."""


@dataclass(frozen=True)
class StepOutcome:
    """What one step did, the same on every rank."""

    loss: float
    """Mean over all predictions of the global batch, nats; not finite where one rank's is not."""
    gradient_norm: float
    """Before clipping; not finite where the step was skipped."""
    applied: bool
    """False where the gradient was not finite, most often an overflow, or the loss was refused: the update was thrown
    away."""
    refusal: str | None
    """Why the loss was refused; None where it was not."""
    stop_requested: bool
    """Whether any rank was asked to stop."""


class TrainingEngine:
    """A model, its optimizer and their shards on this rank.

    Args:
        model: the same weights on every rank are not required; rank 0's count.
        settings: how to learn.
        ranks: this process among the others; the process group must be up.

    Raises:
        LongformerError: the device cannot compute in this precision.
    """

    def __init__(self, model: nn.Module, settings: EngineSettings, ranks: Ranks) -> None:
        if settings.precision == "fp16" and not get_accelerator().is_fp16_supported():
            raise LongformerError(f"fp16 is not to be had on this {ranks.device.type}; choose precision bf16 or fp32")
        self.settings = settings
        self.ranks = ranks
        # What DeepSpeed's conversion to another number of ranks looks for in a checkpoint of ZeRO 1 and 2.
        model.universal_checkpoint_info = {"universal_checkpoint_version": 0.2}  # type: ignore[assignment]
        groups = parameter_groups(model, settings.weight_decay)
        self._weight_decays = [group["weight_decay"] for group in groups]
        self._ordered_parameters: list[nn.Parameter] = [each for group in groups for each in group["params"]]
        optimizer = torch.optim.AdamW(
            groups,
            lr=0.0,
            betas=settings.adam_betas,
            eps=settings.adam_epsilon,
        )
        deepspeed.init_distributed(dist_backend=torch.distributed.get_backend())
        config = deepspeed_config(settings, sum(parameter.numel() for parameter in model.parameters()))
        self._engine, self._optimizer, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)

    def train_step(
        self,
        batches: Iterator[Batch],
        objective: Objective,
        *,
        learning_rate: float,
        guard: LossGuard,
        stop_requested: bool = False,
    ) -> StepOutcome:
        """Take one global batch, update the weights, and tell every rank how it went.

        Args:
            batches: micro-batches of this rank; `accumulation_steps` of them are taken.
            objective: the loss of a micro-batch. Where micro-batches hold different numbers of predictions, each
                prediction of the global batch counts alike, on whichever rank it is.
            learning_rate: of this step.
            guard: judges the loss; what it refuses changes no weight on any rank.
            stop_requested: whether this rank was asked to stop; any rank's wish reaches all of them.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        total_loss = 0.0
        losses, stop, refusal = [math.nan], False, None
        micro_batches = list(islice(batches, self.settings.accumulation_steps))
        for micro_step, weight in enumerate(self._weights(micro_batches, objective)):
            batch = {name: tensor.to(self.ranks.device) for name, tensor in micro_batches[micro_step].items()}
            loss = objective.loss(self._engine, batch) * weight
            total_loss += loss.detach().double().item()
            if micro_step == self.settings.accumulation_steps - 1:
                losses, stop = self._exchange(total_loss / self.settings.accumulation_steps, stop_requested)
                try:
                    guard.judge(losses)
                except BadLoss as bad:
                    refusal = str(bad)
                    # Gradients are in DeepSpeed's hands already; one that is not finite makes it drop all of them.
                    loss = loss * math.nan
            self._engine.backward(loss)
            if micro_step < self.settings.accumulation_steps - 1:
                self._engine.step()
        gradient_norm, applied = self._update()
        return StepOutcome(sum(losses) / len(losses), gradient_norm, applied, refusal, stop)

    def _weights(self, micro_batches: list[Batch], objective: Objective) -> list[float]:
        """Return what each micro-batch counts in the mean over all of the global batch; 1 where all count alike."""
        if objective.predictions is None:
            return [1.0] * len(micro_batches)
        counts = [objective.predictions(batch) for batch in micro_batches]
        total = torch.tensor(sum(counts), dtype=torch.int64, device=self.ranks.device)
        torch.distributed.all_reduce(total)
        # A global batch without any prediction, which chance allows, is a step with a loss and a gradient of 0.
        mean = max(1, int(total.item())) / (len(micro_batches) * self.ranks.world_size)
        return [count / mean for count in counts]

    def _exchange(self, loss: float, stop_requested: bool) -> tuple[list[float], bool]:
        """Return every rank's loss and whether any rank is to stop."""
        table = torch.zeros(self.ranks.world_size, 2, dtype=torch.float64, device=self.ranks.device)
        table[self.ranks.rank] = torch.tensor([loss, float(stop_requested)], dtype=torch.float64)
        torch.distributed.all_reduce(table)
        return table[:, 0].tolist(), bool(table[:, 1].any())

    def _update(self) -> tuple[float, bool]:
        """Apply the accumulated gradient; return its norm before clipping and whether it was applied."""
        if self._is_plain:
            parameters = list(self._engine.module.parameters())
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clipping))
            if not math.isfinite(norm):
                for parameter in parameters:
                    parameter.grad = None  # AdamW leaves alone what has no gradient
            self._engine.step()
            return norm, math.isfinite(norm)
        skipped_before = self._engine.skipped_steps
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return math.nan if norm is None else float(norm), self._engine.skipped_steps == skipped_before

    @property
    def _is_plain(self) -> bool:
        """Whether DeepSpeed leaves the optimizer as it is; then it clips but does not tell the norm."""
        return self.settings.zero_stage == 0 and self.settings.precision == "fp32"

    @property
    def model(self) -> nn.Module:
        """The model to call in evaluation; with ZeRO 3 every rank must call it equally often."""
        return self._engine

    def full_weights(self) -> dict[str, Tensor]:
        """Return every parameter whole, in fp32 on the CPU; all ranks must call it, each gets them all."""
        masters = self._master_weights()
        weights = {}
        for name, parameter in self._engine.module.named_parameters():
            full = masters.get(parameter, safe_get_full_fp32_param(parameter))
            weights[name] = (parameter if full is None else full).detach().float().cpu().clone()
        return weights

    def _master_weights(self) -> dict[Tensor, Tensor]:
        """Return the fp32 copies that DeepSpeed keeps without ZeRO in half precision and offers no access to."""
        if self.settings.zero_stage > 0 or self.settings.precision == "fp32":
            return {}
        return dict(zip(chain(*self._optimizer.fp16_groups), chain(*self._optimizer.fp32_groups), strict=True))

    def save_state(self, directory: Path, tag: str) -> None:
        """Write this rank's shards below `directory/tag`; all ranks must call it."""
        names = {parameter: name for name, parameter in self._engine.module.named_parameters()}
        ordered = [names[parameter] for parameter in self._ordered_parameters]
        self._engine.save_checkpoint(
            str(directory), tag=tag, client_state={PARAMETER_NAMES: ordered}, save_latest=False
        )

    def state_files(self, directory: Path, tag: str) -> dict[Path, bytes | memoryview]:
        """Return the files that `save_state` would write on this rank, by path; all ranks must call it.

        What is returned is a copy: training may go on while it is written.
        """
        writer, held = self._engine.checkpoint_engine, _HeldInMemory()
        self._engine.checkpoint_engine = held
        try:
            self.save_state(directory, tag)
        finally:
            self._engine.checkpoint_engine = writer
        return held.files

    def load_state(self, directory: Path, tag: str, *, universal: bool = False) -> None:
        """Take over weights, optimizer and loss scale from `directory/tag`; all ranks must call it.

        The files are read with Python's pickle, as DeepSpeed writes them: load only checkpoints you trust.

        Args:
            directory: where `save_state` wrote.
            tag: under which name.
            universal: whether the state was converted to DeepSpeed's universal format, which fits any number of ranks.

        Raises:
            LongformerError: DeepSpeed found nothing to load.
        """
        if universal and self.settings.zero_stage == 0:
            self._load_whole_state(directory / tag / "zero")
            return
        # DeepSpeed wants to know it when it is initialized, and looks when it loads.
        self._engine._config.load_universal_checkpoint = universal
        path, _ = self._engine.load_checkpoint(str(directory), tag=tag)
        if path is None:
            raise LongformerError(f"{directory} holds no state that DeepSpeed can load")
        if universal:
            self._separate_groups()

    @torch.no_grad()
    def _load_whole_state(self, parameters: Path) -> None:
        """Take over a universal state without ZeRO, for which DeepSpeed has no loader."""
        masters = self._master_weights()
        adamw = self._optimizer.optimizer if masters else self._optimizer
        for name, parameter in self._engine.module.named_parameters():
            if not parameter.requires_grad:
                continue  # a frozen one is in no optimizer and in no universal state, and is as it was

            def saved(what: str, folder: Path = parameters / name, like: Tensor = parameter) -> Tensor:
                return torch.load(folder / f"{what}.pt", weights_only=True)["param"].view_as(like).to(like.device)

            master = masters.get(parameter, parameter)
            master.copy_(saved("fp32"))
            parameter.copy_(master)
            adamw.state[master] = {
                "step": torch.load(parameters / name / "step.pt", weights_only=True).clone(),
                "exp_avg": saved("exp_avg"),
                "exp_avg_sq": saved("exp_avg_sq"),
            }

    def _separate_groups(self) -> None:
        """Undo what ZeRO 3 does when it loads a universal state: one step counter and one decay for all groups."""
        adamw = self._optimizer.optimizer
        for group, weight_decay in zip(adamw.param_groups, self._weight_decays, strict=True):
            group["weight_decay"] = weight_decay
        for state in adamw.state.values():
            state["step"] = state["step"].clone()


class _HeldInMemory(TorchCheckpointEngine):
    """Where DeepSpeed saves to: memory instead of files."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[Path, bytes | memoryview] = {}

    def save(self, state_dict: Any, path: str) -> None:
        """Keep what the file would hold."""
        content = io.BytesIO()
        torch.save(state_dict, content)
        self.files[Path(path)] = content.getbuffer()
