"""One optimizer step over all ranks, carried out by DeepSpeed.

The engine promises that every rank sees the same outcome of every step, that no update is applied after a
loss or a gradient that is not finite, and that an update that was skipped is reported as such. It waits for the device
once per step: everything that is decided or reported is exchanged and computed there, and read together before the
update.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from longformer.errors import LongformerError
from longformer.training import deepspeed_compat
from longformer.training.distributed import Ranks
from longformer.training.engine_settings import DTYPES, EngineSettings, deepspeed_config, parameter_groups, set_fused
from longformer.training.guards import BadLoss, LossGuard
from longformer.training.objectives import Batch, Lengths, Objective


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
    checkpoint_requested: bool
    """Whether any rank wants a checkpoint."""
    tokens: int
    """Of the global batch, padding not counted."""
    flops: float
    """Useful operations on those tokens."""


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
        if settings.precision == "fp16" and not deepspeed_compat.supports_fp16():
            raise LongformerError(f"fp16 is not available on this {ranks.device.type}; choose precision bf16 or fp32")
        self.settings = settings
        self.ranks = ranks
        groups = parameter_groups(
            model, settings.weight_decay, settings.layer_decay, settings.head_learning_rate_factor
        )
        self._weight_decays = [group["weight_decay"] for group in groups]
        self._lr_scales = [group["lr_scale"] for group in groups]
        self._ordered_parameters: list[nn.Parameter] = [each for group in groups for each in group["params"]]
        optimizer = torch.optim.AdamW(
            groups,
            lr=0.0,
            betas=settings.adam_betas,
            eps=settings.adam_epsilon,
            fused=self._is_fused,
        )
        config = deepspeed_config(
            settings,
            sum(parameter.numel() for parameter in model.parameters()),
            overlaps=ranks.device.type == "cuda" and ranks.world_size > 1 and not settings.offload_optimizer,
        )
        self._hollow_copy = hollow_copy(model).to(DTYPES[settings.precision]) if settings.zero_stage == 3 else None
        self._engine, self._optimizer = deepspeed_compat.initialize(model, optimizer, config)

    def train_step(
        self,
        batches: Iterator[Batch],
        objective: Objective,
        *,
        learning_rate: float,
        guard: LossGuard,
        flops: Callable[[Lengths], float] = lambda lengths: 0.0,
        stop_requested: bool = False,
        checkpoint_requested: bool = False,
    ) -> StepOutcome:
        """Takes one global batch, updates the weights, and tells every rank how it went.

        Args:
            batches: micro-batches of this rank; `accumulation_steps` of them are taken.
            objective: the loss of a micro-batch. Where micro-batches hold different numbers of predictions, each
                prediction of the global batch counts alike, on whichever rank it is.
            learning_rate: of this step; that of a layer or a head may be another, as the settings say.
            guard: checks the loss; what it refuses changes no weight on any rank.
            flops: returns the useful operations to train on a sequence.
            stop_requested: whether this rank was asked to stop; any rank's wish reaches all of them.
            checkpoint_requested: whether this rank wants a checkpoint, likewise.
        """
        for group, scale in zip(self._optimizer.param_groups, self._lr_scales, strict=True):
            group["lr"] = learning_rate * scale
        micro_batches = list(islice(batches, self.settings.accumulation_steps))
        lengths = [each for batch in micro_batches for each in objective.lengths(batch)]
        counts = None if objective.predictions is None else list(map(objective.predictions, micro_batches))
        tokens, work = sum(each.tokens for each in lengths), sum(map(flops, lengths))
        sums = self._summed(float(sum(counts or ())), stop_requested, checkpoint_requested, float(tokens), work)
        losses = torch.zeros(self.ranks.world_size, dtype=torch.float64, device=self.ranks.device)
        # A global batch without any prediction, which chance allows, is a step with a loss and a gradient of 0.
        predictions = sums[0].clamp(min=1) / (self.settings.accumulation_steps * self.ranks.world_size)
        for micro_step, batch in enumerate(micro_batches, start=1):
            loss = objective.loss(self._engine, self._on_device(batch, objective))
            if counts is not None:
                loss = loss * (counts[micro_step - 1] / predictions).to(loss.dtype)
            losses[self.ranks.rank] += loss.detach()
            self._engine.backward(loss)
            if micro_step < self.settings.accumulation_steps:
                self._engine.step()
        losses /= self.settings.accumulation_steps
        torch.distributed.all_reduce(losses)
        told: list[float] = []
        refusal = None

        def accepted(norm: Tensor) -> float:
            """Returns the norm, or infinity for a loss that is refused; the one place that waits for the device."""
            nonlocal told, refusal
            *told, read_norm = torch.cat([losses, sums, norm.double()[None]]).tolist()
            try:
                guard.check(told[: self.ranks.world_size])
            except BadLoss as bad:
                refusal = str(bad)
                return math.inf
            return read_norm

        gradient_norm, applied = self._update(accepted)
        *told_losses, _, stops, saves, all_tokens, all_work = told
        return StepOutcome(
            loss=sum(told_losses) / len(told_losses),
            gradient_norm=gradient_norm,
            applied=applied,
            refusal=refusal,
            stop_requested=stops > 0,
            checkpoint_requested=saves > 0,
            tokens=int(all_tokens),
            flops=all_work,
        )

    def _summed(self, *numbers: float) -> Tensor:
        """Returns the sums of numbers over all ranks, float64 on the device; whole ones are exact below 2^53."""
        # Filled on the device: a copy from the host would wait for it.
        device = self.ranks.device
        sums = torch.stack([torch.full((), number, dtype=torch.float64, device=device) for number in numbers])
        torch.distributed.all_reduce(sums)
        return sums

    def _on_device(self, batch: Batch, objective: Objective) -> dict[str, Any]:
        """Returns a batch on the device, with its facts; the copies wait for nothing that the device is at."""
        device = self.ranks.device
        facts = {} if objective.facts is None else {"facts": objective.facts(self._engine.module, batch)}
        if device.type == "cuda":
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        return facts | {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}

    def _update(self, accepted: Callable[[Tensor], float]) -> tuple[float, bool]:
        """Applies the accumulated gradient if its norm is accepted as finite.

        Args:
            accepted: as in `deepspeed_compat.step`.

        Returns:
            The norm before clipping, and whether the gradient was applied.
        """
        if self._is_plain:
            parameters = list(self._engine.module.parameters())
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            accepted_norm = accepted(norm)
            if math.isfinite(accepted_norm):
                torch.nn.utils.clip_grads_with_norm_(parameters, self.settings.gradient_clipping, norm)
            else:
                for parameter in parameters:
                    parameter.grad = None  # AdamW leaves alone what has no gradient
            self._engine.step()
            return accepted_norm, math.isfinite(accepted_norm)
        skipped_before = self._engine.skipped_steps
        deepspeed_compat.step(self._engine, self._optimizer, accepted)
        return float(self._engine.get_global_grad_norm()), self._engine.skipped_steps == skipped_before

    @property
    def _is_fused(self) -> bool:
        """Whether AdamW updates everything in one pass: on GPUs, where passes over small tensors wait for the host."""
        return self.ranks.device.type == "cuda"

    @property
    def _is_plain(self) -> bool:
        """Whether DeepSpeed leaves the optimizer as it is; then it clips but does not tell the norm."""
        return self.settings.zero_stage == 0 and self.settings.precision == "fp32"

    @contextmanager
    def whole_model(self) -> Iterator[nn.Module]:
        """Yields the model for evaluation, in the training precision; all ranks must enter the block.

        Within it each rank may call the model as it likes. With ZeRO 3 it is a copy whose weights are gathered now and
        given up at the end, so that every rank needs memory for all of them.
        """
        if self._hollow_copy is None:
            yield self._engine.module
            return
        copied = list(self._hollow_copy.parameters())
        try:
            for copy, parameter in zip(copied, self._engine.module.parameters(), strict=True):
                copy.data = deepspeed_compat.gathered(parameter)
            yield self._hollow_copy
        finally:
            for copy in copied:
                copy.data = copy.new_empty(0)

    def full_weights(self) -> dict[str, Tensor]:
        """Returns every parameter whole, in fp32 on the CPU; all ranks must call it, each gets them all."""
        masters = self._master_weights()
        weights = {}
        for name, parameter in self._engine.module.named_parameters():
            full = masters.get(parameter, deepspeed_compat.full_parameter(parameter))
            if full is None:  # without ZeRO, or frozen
                full = deepspeed_compat.gathered(parameter)
            weights[name] = full.detach().float().cpu().clone()
        return weights

    def _master_weights(self) -> dict[Tensor, Tensor]:
        """Returns the fp32 copies that DeepSpeed keeps without ZeRO in half precision; none otherwise."""
        if self.settings.zero_stage > 0 or self.settings.precision == "fp32":
            return {}
        return deepspeed_compat.master_weights(self._optimizer)

    def save_state(self, directory: Path, tag: str) -> None:
        """Writes this rank's shards below `directory/tag`; all ranks must call it."""
        names = {parameter: name for name, parameter in self._engine.module.named_parameters()}
        ordered = [names[parameter] for parameter in self._ordered_parameters]
        self._engine.save_checkpoint(
            str(directory), tag=tag, client_state={deepspeed_compat.PARAMETER_NAMES: ordered}, save_latest=False
        )

    def state_files(self, directory: Path, tag: str) -> dict[Path, bytes | memoryview]:
        """Returns the files that `save_state` would write on this rank, by path; all ranks must call it.

        What is returned is a copy: training may go on while it is written.
        """
        with deepspeed_compat.saving_to_memory(self._engine) as files:
            self.save_state(directory, tag)
        return files

    def load_state(self, directory: Path, tag: str, *, universal: bool = False) -> None:
        """Takes over weights, optimizer and loss scale from `directory/tag`; all ranks must call it.

        The files are read with Python's pickle, as DeepSpeed writes them: load only checkpoints you trust.

        Args:
            directory: where `save_state` wrote.
            tag: under which name.
            universal: whether the state was converted to DeepSpeed's universal format, which fits any number of ranks.

        Raises:
            LongformerError: DeepSpeed found nothing to load.
        """
        if universal and self.settings.zero_stage == 0:
            deepspeed_compat.load_universal_without_zero(
                self._engine.module, self._optimizer, self._master_weights(), directory / tag / "zero"
            )
        elif not deepspeed_compat.load_checkpoint(self._engine, directory, tag, universal=universal):
            raise LongformerError(f"{directory} holds no state that DeepSpeed can load")
        elif universal:
            deepspeed_compat.separate_groups(self._optimizer.optimizer, self._weight_decays)
        set_fused(self._optimizer if self._is_plain else self._optimizer.optimizer, self._is_fused)


def hollow_copy(model: nn.Module) -> nn.Module:
    """Returns a copy of a model whose parameters have no elements; what is shared between modules stays so."""
    hollow: dict[int, Any] = {
        id(each): nn.Parameter(each.new_empty(0), each.requires_grad) for each in model.parameters()
    }
    return deepcopy(model, hollow)
