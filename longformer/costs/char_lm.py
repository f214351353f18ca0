"""What a character model costs at a shape: parameters, floating-point operations and memory, by formula.

Used by the plan before a run, by the metrics during it and by the report after it. Tests hold every formula against
the real model.
"""

import math
import time
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from longformer.attention.band import Band
from longformer.models.char_lm.config import CharacterModelConfig

Precision = Literal["fp32", "bf16", "fp16"]

LARGEST_BUCKET = 500_000_000
"""Most numbers in DeepSpeed's buffer for gradients; a smaller model has one of its own size."""

_FLOAT32_BYTES = 4
_PRODUCT_SIZES = {"cpu": 1024, "cuda": 8192}


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


def parameter_count(config: CharacterModelConfig) -> int:
    """Return the number of weights of a `CharacterLM`."""
    width, inner = config.hidden_size, config.feedforward_size
    embedding_and_output_bias = (width + 1) * config.vocabulary_size
    norms = (2 * config.layers + 1) * 2 * width
    attention = 4 * width**2
    feedforward = 2 * width * inner + inner + width
    relative = width**2 if config.position == "transformer_xl" else 0
    shared_biases = 2 * width if config.position == "transformer_xl" else 0
    return embedding_and_output_bias + norms + shared_biases + config.layers * (attention + relative + feedforward)


def training_flops_per_token(config: CharacterModelConfig, sequence_length: int) -> float:
    """Return the useful floating-point operations to train on one character: three times the forward pass.

    Attention counts visible pairs only. Not counted: whatever is computed again by activation checkpointing, and
    the product W_r R of transformer_xl, which a whole batch shares.

    Args:
        config: the model.
        sequence_length: positions; near the start of a sequence the bands are shorter.
    """
    width = config.hidden_size
    products = 4 * width**2 + 2 * width * config.feedforward_size
    forward = 2.0 * (config.layers * products + width * config.vocabulary_size)
    # The distance term of transformer_xl is a third product over the same pairs.
    per_pair = 1.5 if config.position == "transformer_xl" else 1.0
    for layer in range(config.layers):
        for dilation in config.head_dilations(layer):
            band = Band(config.windows[layer], 0, dilation)
            forward += per_pair * band.forward_flops(sequence_length, config.head_size) / sequence_length
    return 3 * forward


def training_memory(config: CharacterModelConfig, layout: TrainingLayout, *, sequence_length: int) -> MemoryEstimate:
    """Return the memory that one rank needs to train.

    Args:
        config: the model; its own `activation_checkpointing` is not looked at.
        layout: how training is laid out.
        sequence_length: positions of a sequence.
    """
    weights, sequences = parameter_count(config), layout.micro_batch_size
    layers = [_layer_activations(config, layer, sequence_length, sequences) for layer in range(config.layers)]
    layer_inputs = config.layers * sequences * sequence_length * config.hidden_size
    kept = layer_inputs + (max(layers) if layout.activation_checkpointing else sum(layers))
    positions = sequences * sequence_length
    return memory_estimate(
        layout,
        weights=weights,
        trained=weights,
        activations=kept + positions * _end_activations(config),
        float32_activations=positions * config.vocabulary_size,
    )


def memory_estimate(
    layout: TrainingLayout, *, weights: int, trained: int, activations: int, float32_activations: int
) -> MemoryEstimate:
    """Return the bytes that one rank needs for so many numbers.

    The formula stands in docs/how-to/plan.md; tests hold it against real ranks of DeepSpeed 0.19.8.

    Args:
        layout: how training is laid out.
        weights: of the model.
        trained: those of them that have a gradient.
        activations: what is kept for the backward pass, in the training precision.
        float32_activations: what is kept in float32 whatever the precision.
    """
    ranks, zero_stage = layout.ranks, layout.zero_stage
    size = 2 if layout.half_precision else _FLOAT32_BYTES
    own_weights = 1 if zero_stage > 0 or layout.half_precision else 0
    parameters = _share(weights * size, ranks if zero_stage >= 3 else 1)
    gradients = _share(trained * size, ranks if zero_stage >= 2 else 1)
    optimizer = _share(trained * _FLOAT32_BYTES * (2 + own_weights), ranks if zero_stage >= 1 else 1)
    kept = size * activations + _FLOAT32_BYTES * float32_activations
    bucket = min(weights, LARGEST_BUCKET) * size
    if zero_stage == 0:
        # Gradients are reduced, and in half precision turned into fp32, once the activations are gone.
        communication, update = 0, trained * _FLOAT32_BYTES
    else:
        gathered = weights * size if zero_stage == 3 and ranks > 1 else 0
        communication, update = bucket + gathered, _share(3 * trained * _FLOAT32_BYTES, ranks)
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
    )


@cache
def measured_peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of a large matrix product, the best of a quarter second.

    Measured once per process, on as many threads as torch has; what a training step reaches of it is its MFU.
    """
    size = _PRODUCT_SIZES[device.type]
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    shortest = math.inf
    until = time.perf_counter() + 0.25
    while time.perf_counter() < until:
        start = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        shortest = min(shortest, time.perf_counter() - start)
    return 2 * size**3 / shortest


def _layer_activations(config: CharacterModelConfig, layer: int, sequence_length: int, batch: int) -> int:
    """Return how many numbers a layer keeps for its backward pass, besides its input."""
    width, inner = config.hidden_size, config.feedforward_size
    # Input of the packed projection, the packed projection (values are read in place), two tensors like queries
    # (rotated queries and keys, or queries with either bias), attended values, stream and input of the feed-forward.
    per_position = (1 + 3 + 2 + 1 + 1 + 1) * width + 2 * inner
    if config.dropout:
        per_position += 2 * width + inner
    columns = 0
    if config.position == "transformer_xl":
        # Sinusoids per dilation, and the relative keys.
        kinds = len(set(config.head_dilations(layer)))
        columns = (1 + kinds * (2 if config.dropout else 1)) * min(config.windows[layer] + 1, sequence_length)
    return batch * sequence_length * per_position + columns * width


def _end_activations(config: CharacterModelConfig) -> int:
    """Return how many numbers per position embedding, last norm and output keep."""
    return (4 if config.dropout else 2) * config.hidden_size


def _share(amount: int, ranks: int) -> int:
    return math.ceil(amount / ranks)
