"""Claims: useful operations and memory are those that PyTorch counts of whole models of the published sizes.

They take a step on the meta device, where tensors have shapes and no memory, as they would on a GPU.
"""

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from longformer import models
from longformer.attention.band import Band
from longformer.benchmarks import published_shapes as shapes
from longformer.costs.memory import TrainingLayout
from longformer.costs.training import TrainingCost
from longformer.models.char_lm.config import CHARACTER_MODEL_SIZES, CharacterModelConfig
from longformer.models.char_lm.model import CharacterLM
from longformer.models.common.freezing import freeze_global_projections
from longformer.models.common.layer_order import freeze_lower_layers
from longformer.models.common.weightless import without_weights
from longformer.training.objectives import LABELS, NEXT_CHARACTER, Batch, Lengths, Objective, summary_tokens

LABELLED = 0.125


def characters(position: Any) -> CharacterLM:
    shape = CHARACTER_MODEL_SIZES["large"]
    windows = tuple(32 * 2 ** (layer // 6) for layer in range(shape["layers"]))
    dilations = tuple(1 + layer // 15 for layer in range(shape["layers"]))
    return CharacterLM(
        CharacterModelConfig(**shape, vocabulary_size=205, windows=windows, dilations=dilations, position=position)
    )


def longformer(model_class: Any, *, large: bool = True) -> Any:
    shape = shapes.LONGFORMER_LARGE if large else shapes.LONGFORMER_BASE
    options = {"max_position_embeddings": 16_386, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return model_class(models.LongformerConfig(**{**shape, **options}))


def characters_of(texts: int, lengths: Lengths) -> Batch:
    return {"tokens": torch.zeros(texts, lengths.read + 1, dtype=torch.long)}


def texts_of(texts: int, lengths: Lengths) -> Batch:
    ids = torch.full((texts, lengths.read), 3)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def masked_of(texts: int, lengths: Lengths) -> Batch:
    batch = texts_of(texts, lengths)
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, : int(LABELLED * lengths.read)] = 3
    return {**batch, "labels": labels}


def classes_of(texts: int, lengths: Lengths) -> Batch:
    return {**texts_of(texts, lengths), "labels": torch.zeros(texts, dtype=torch.long)}


def documents_of(texts: int, lengths: Lengths) -> Batch:
    batch = texts_of(texts, lengths)
    is_global = torch.zeros_like(batch["input_ids"])
    is_global[:, 0] = 1
    return {**batch, "global_attention_mask": is_global, "labels": torch.full((texts, lengths.written), 3)}


Case = tuple[Callable[[], nn.Module], Objective, Callable[[int, Lengths], Batch], Callable[[Lengths], float], int]
CASES: dict[str, Case] = {
    "rotary": (lambda: characters("rotary"), NEXT_CHARACTER, characters_of, lambda text: text.read, 0),
    "transformer_xl": (lambda: characters("transformer_xl"), NEXT_CHARACTER, characters_of, lambda text: text.read, 0),
    "masked_lm": (
        lambda: longformer(models.LongformerForMaskedLM), LABELS, masked_of, lambda text: LABELLED * text.read, 0,
    ),
    "classes": (
        lambda: longformer(models.LongformerForSequenceClassification, large=False), LABELS, classes_of, lambda _: 1, 1,
    ),
    "summaries": (
        lambda: models.LEDForConditionalGeneration(models.LEDConfig(**shapes.LED_LARGE)), summary_tokens(0.1),
        documents_of, lambda text: text.written, 1,
    ),
}  # fmt: skip


def made(case: str) -> tuple[nn.Module, Case]:
    with without_weights():
        model = CASES[case][0]().train()
    if case == "masked_lm":
        freeze_global_projections(model)
    return model.bfloat16(), CASES[case]


def loss_of(model: nn.Module, objective: Objective, batch: Batch, **more: Any) -> Tensor:
    facts = {} if objective.facts is None else {"facts": objective.facts(model, batch)}
    return objective.loss(model, {**{name: each.to("meta") for name, each in batch.items()}, **facts, **more})


def band_flops(projections: list[torch.Size], *arguments: Any, out_shape: Any = None) -> int:
    """Count the useful operations of longformer::blocked_attention, whose arguments a counter gives as shapes."""
    left, right, dilations = arguments[6:9]
    batch, positions, *_, head_size = projections[0]
    relative = 1.0 if arguments[3] is None else 1.5
    flops = sum(Band(left, right, dilation).forward_flops(positions, head_size) for dilation in dilations)
    return int(batch * relative * flops)


@pytest.mark.parametrize(
    ("case", "lengths", "deviation"),
    [
        ("transformer_xl", Lengths(2048), 1e-12),
        ("masked_lm", Lengths(4096), 1e-12),
        # What is not counted: the projections of a global token, and pairs that a causal mask hides.
        ("classes", Lengths(512), 1e-3),
        ("summaries", Lengths(2048, 256), 5e-3),
    ],
)
def test_operations_are_those_of_a_forward_pass_three_times(case: str, lengths: Lengths, deviation: float) -> None:
    model, (_, objective, batch, predictions, global_tokens) = made(case)
    counted = []
    for texts in (1, 2):
        operator = torch.ops.longformer.blocked_attention
        counter = FlopCounterMode(display=False, custom_mapping={operator: band_flops})
        with torch.no_grad(), counter:
            # Else the last layer leaves out positions that nothing is predicted at.
            loss_of(model, objective, batch(texts, lengths), output_hidden_states=True)
        counted.append(counter.get_total_flops())
    # A second text costs what the texts do not share.
    expected = 3 * (counted[1] - counted[0])
    cost = TrainingCost(model, [lengths], predictions, global_tokens)
    assert cost.flops(lengths) == pytest.approx(expected, rel=deviation)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are there at a time, views not, nor what is `known` before."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = {id(tensor.untyped_storage()) for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and id(storage := tensor.untyped_storage()) not in self._known:
                self._known.add(id(storage))
                self._add(storage.nbytes())
                weakref.finalize(storage, self._forget, id(storage), storage.nbytes())
        return result

    def _add(self, size: int) -> None:
        self.live += size
        self.peak = max(self.peak, self.live)

    def _forget(self, storage: int, size: int) -> None:
        self.live -= size
        self._known.discard(storage)


def peak_bytes(model: nn.Module, objective: Objective, batch: Batch) -> int:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    with LiveBytes([*model.parameters(), *model.buffers(), *gradients]) as counter:
        loss_of(model, objective, batch).backward()
    return counter.peak


@pytest.mark.parametrize(
    ("case", "length", "texts", "recomputes", "frozen"),
    [
        ("rotary", 2048, 8, True, 0),
        ("transformer_xl", 16_384, 1, False, 0),
        ("masked_lm", 16_384, 1, False, 0),
        ("masked_lm", 16_384, 2, True, 0),
        ("classes", 4096, 2, True, 0),
        ("classes", 4096, 2, False, 8),
    ],
)
def test_activations_are_the_most_that_is_there_in_a_step(
    case: str, length: int, texts: int, recomputes: bool, frozen: int
) -> None:
    model, (_, objective, batch, predictions, global_tokens) = made(case)
    freeze_lower_layers(model, frozen)
    if recomputes and isinstance(model, CharacterLM):
        model.config = replace(model.config, activation_checkpointing=True)
    elif recomputes:
        model.gradient_checkpointing_enable()
    layout = TrainingLayout(
        micro_batch_size=texts,
        ranks=1,
        zero_stage=2,
        precision="bf16",
        activation_checkpointing=recomputes,
        on_gpu=True,
    )
    cost = TrainingCost(model, [Lengths(length)], predictions, global_tokens)
    needed = peak_bytes(model, objective, batch(texts, Lengths(length)))
    assert cost.memory(layout).activations == pytest.approx(needed, rel=0.15)
