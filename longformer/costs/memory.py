"""Memory that one rank needs to train, by formula; tests hold it against real ranks of DeepSpeed."""

import math
from dataclasses import dataclass
from typing import Literal, Self

from torch import nn

from longformer.models.common.freezing import PartlyFrozenTable

Precision = Literal["fp32", "bf16", "fp16"]


LARGEST_BUCKET = 500_000_000
"""Most numbers in DeepSpeed's buffer for gradients; a smaller model has one of its own size."""
OVERLAPPED_BUCKET = 50_000_000
"""Most numbers in either of its two where gradients go to other ranks while backward computes more of them."""

MOST_GATHERED = 100_000_000
"""Most weights that a rank gathers from the others under ZeRO 3 before they are used; a smaller model is whole."""


_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Weights:
    """How many weights a model has."""

    all: int
    """Those that two parts share count once."""
    trained: int
    """Those that are not frozen."""

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Counts those of a model."""
        constant = [module.pretrained for module in model.modules() if isinstance(module, PartlyFrozenTable)]
        trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
        return cls(sum(each.numel() for each in (*model.parameters(), *constant)), trained)


@dataclass(frozen=True)
class TrainingLayout:
    """How training is laid out over ranks."""

    micro_batch_size: int
    """Sequences per forward pass on a rank."""
    ranks: int
    """That share what ZeRO shards."""
    zero_stage: int
    """0 shards nothing, 1 the optimizer, 2 also gradients, 3 also weights."""
    precision: Precision
    """Of weights, gradients and activations; the optimizer always works in fp32."""
    activation_checkpointing: bool
    """Keep only each layer's input, and one layer at a time in full."""
    on_gpu: bool = False
    """Whether ranks compute on GPUs: there layers keep what a CPU computes again."""
    offload_optimizer: bool = False
    """Keep gradients and the optimizer in the main memory, which is another one only where ranks compute on GPUs."""

    @property
    def keeps_all(self) -> bool:
        """Whether layers keep what they compute again on a CPU: on a GPU, and where ZeRO 3 gathers their parts."""
        return self.on_gpu or self.zero_stage == 3

    @property
    def half_precision(self) -> bool:
        """Whether weights and activations have 16 bits."""
        return self.precision != "fp32"


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes one rank needs, without what kernels, CUDA and NCCL hold for themselves."""

    parameters: int
    """Weights in the training precision."""
    gradients: int
    """Gradients in the training precision."""
    optimizer: int
    """AdamW's two averages and, with ZeRO or half precision, the optimizer's own fp32 weights."""
    activations: int
    """What the forward pass keeps for the backward pass."""
    communication: int
    """DeepSpeed's buffer for gradients on their way to other ranks and, with ZeRO 3, the weights gathered from them."""
    update: int
    """What AdamW's update holds for a moment: gradients once more in fp32, and two numbers for each weight."""
    total: int
    """The peak: states, and either activations and communication or the update, whichever is more."""
    offloaded: int = 0
    """Of a rank on a GPU, beside all that: what lies in the main memory."""


def memory_estimate(
    layout: TrainingLayout, weights: Weights, *, activations: int, float32_activations: int
) -> MemoryEstimate:
    """Returns the bytes that one rank needs for so many numbers.

    The formula stands in docs/how-to/plan.md; tests hold it against real ranks of DeepSpeed 0.19.8.

    Args:
        layout: how training is laid out.
        weights: of the model.
        activations: what is kept for the backward pass, in the training precision.
        float32_activations: what is kept in float32 whatever the precision.
    """
    ranks, zero_stage = layout.ranks, layout.zero_stage
    size = 2 if layout.half_precision else _FLOAT32_BYTES
    own_weights = 1 if zero_stage > 0 or layout.half_precision else 0
    trained = weights.trained
    parameters = _share(weights.all * size, ranks if zero_stage >= 3 else 1)
    gradients = _share(trained * size, ranks if zero_stage >= 2 else 1)
    optimizer = _share(trained * _FLOAT32_BYTES * (2 + own_weights), ranks if zero_stage >= 1 else 1)
    kept = size * activations + _FLOAT32_BYTES * float32_activations
    overlaps = layout.on_gpu and ranks > 1 and not layout.offload_optimizer
    bucket = (2 * min(weights.all, OVERLAPPED_BUCKET) if overlaps else min(weights.all, LARGEST_BUCKET)) * size
    if zero_stage == 0:
        # Gradients are reduced, and in half precision turned into fp32, once the activations are gone.
        communication, update = 0, trained * _FLOAT32_BYTES
    else:
        gathered = min(weights.all, MOST_GATHERED) * size if zero_stage == 3 and ranks > 1 else 0
        communication, update = bucket + gathered, _share(3 * trained * _FLOAT32_BYTES, ranks)
    offloaded = 0
    if layout.offload_optimizer and layout.on_gpu and zero_stage > 0:
        # There gradients are summed in fp32, so that the update needs room for two numbers only.
        offloaded = optimizer + _share(3 * trained * _FLOAT32_BYTES, ranks)
        gradients = optimizer = update = 0
    # Only ZeRO 3 holds on to its buffers while it updates.
    updating = update + (communication if zero_stage == 3 else 0)
    return MemoryEstimate(
        parameters=parameters,
        gradients=gradients,
        optimizer=optimizer,
        activations=kept,
        communication=communication,
        update=update,
        total=parameters + gradients + optimizer + max(communication + kept, updating),
        offloaded=offloaded,
    )


def _share(amount: int, ranks: int) -> int:
    return math.ceil(amount / ranks)
