"""A language model of a few thousand parameters and batches for it: enough to see whether training is right."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from longformer.training.distributed import Ranks
from longformer.training.engine import TrainingEngine
from longformer.training.engine_settings import EngineSettings
from longformer.training.guards import GuardSettings, LossGuard
from longformer.training.objectives import NEXT_CHARACTER

VOCABULARY, LENGTH = 32, 12

SETTINGS = EngineSettings(
    zero_stage=2,
    precision="fp32",
    micro_batch_size=2,
    accumulation_steps=1,
    gradient_clipping=1.0,
    weight_decay=0.1,
    layer_decay=1.0,
    adam_betas=(0.9, 0.99),
    adam_epsilon=1e-8,
)


class SmallModel(nn.Module):
    """Embedding, a wide layer that ZeRO 3 really shards (it leaves tensors under 100,000 elements whole), output.

    Args:
        width: features.
        dropout: probability.
        frozen: whether nothing but the wide layer is trained.
    """

    def __init__(self, *, width: int = 16, dropout: float = 0.0, frozen: bool = False) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.mix = nn.Conv1d(width, width, 3)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, VOCABULARY)
        if frozen:
            self.requires_grad_(False).mix.requires_grad_(True)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        mixed = self.mix(nn.functional.pad(hidden.transpose(1, 2), (2, 0))).transpose(1, 2)
        return self.output(self.dropout(self.norm(hidden + mixed.tanh())))


def no_spikes(on_bad_loss: Any = "stop") -> LossGuard:
    """Return a guard that refuses only losses that are not finite."""
    return LossGuard(GuardSettings(on_bad_loss=on_bad_loss, spike_threshold=None))


def global_batch(step: int, size: int) -> Tensor:
    """Return the tokens of a step, (size, LENGTH + 1), the same for every number of ranks."""
    generator = torch.Generator().manual_seed(1000 + step)
    start = torch.randint(0, VOCABULARY, (size, 1), generator=generator)
    stride = torch.randint(1, 4, (size, 1), generator=generator)
    return (start + stride * torch.arange(LENGTH + 1)) % VOCABULARY


def micro_batches(ranks: Ranks, settings: EngineSettings, *, size: int, first_step: int = 0) -> Iterator[Any]:
    """Yield this rank's micro-batches of global batches of `size` without end."""
    step = first_step
    while True:
        mine = global_batch(step, size).chunk(ranks.world_size)[ranks.rank]
        for tokens in mine.split(settings.micro_batch_size):
            yield {"tokens": tokens}
        step += 1


def small_engine(ranks: Ranks, settings: EngineSettings, **model: Any) -> TrainingEngine:
    """Return an engine around a SmallModel, its random generator set apart per rank."""
    engine = TrainingEngine(SmallModel(**model), settings, ranks)
    torch.manual_seed(100 + ranks.rank)
    return engine


def train_small(
    ranks: Ranks, settings: EngineSettings, steps: int, size: int, model: dict[str, Any] | None = None
) -> tuple[list[float], list[float], dict[str, Tensor]]:
    """Train and return losses, gradient norms and the weights at the end."""
    micro = size // ranks.world_size // settings.accumulation_steps
    settings = replace(settings, micro_batch_size=micro)
    engine = small_engine(ranks, settings, **model or {})
    batches = micro_batches(ranks, settings, size=size)
    outcomes = [engine.train_step(batches, NEXT_CHARACTER, learning_rate=0.01, guard=no_spikes()) for _ in range(steps)]
    assert all(outcome.applied for outcome in outcomes)
    weights = {name: tensor.numpy() for name, tensor in engine.full_weights().items()}
    return [outcome.loss for outcome in outcomes], [outcome.gradient_norm for outcome in outcomes], weights
