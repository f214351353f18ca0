"""A whole optimizer step waits for the device once, whatever is trained and however it is sharded."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from deepspeed.accelerator import get_accelerator

from longformer.models import (
    LEDConfig,
    LEDForConditionalGeneration,
    LongformerConfig,
    LongformerForCoreference,
    LongformerForMaskedLM,
    LongformerForMultiHopAnswers,
    LongformerForMultipleChoice,
    LongformerForQuestionAnswering,
    LongformerForSequenceClassification,
)
from longformer.models.common.freezing import freeze_global_projections
from longformer.training import deepspeed_compat
from longformer.training.engine import TrainingEngine
from longformer.training.engine_settings import EngineSettings, deepspeed_config, parameter_groups
from longformer.training.objectives import (
    ANSWER_SPANS,
    CLUSTERS,
    HOPS,
    LABELS,
    NEXT_CHARACTER,
    Objective,
    summary_tokens,
    weighted_labels,
)
from tests.training.pretend_device import DEVICE, as_on_a_device, pretend_device
from tests.training.rank_group import in_ranks
from tests.training.small_model import SETTINGS, SmallModel, global_batch, no_spikes

POSITIONS, IDS = 40, 50
LONGFORMER = LongformerConfig(
    vocab_size=IDS,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    attention_window=8,
    max_position_embeddings=64,
    pad_token_id=1,
)
LED = LEDConfig(
    vocab_size=IDS,
    d_model=16,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=24,
    decoder_ffn_dim=24,
    attention_window=8,
    max_encoder_position_embeddings=64,
    max_decoder_position_embeddings=64,
)
CLUSTERED = {"max_span_tokens": 4, "head_size": 24}
Batch = dict[str, torch.Tensor]


def texts(*shape: int) -> Batch:
    """Return padded texts whose first tokens are global."""
    ids = torch.randint(5, IDS, (*shape, POSITIONS))
    mask = torch.ones_like(ids)
    mask[-1, ..., POSITIONS // 2 :] = 0
    is_global = (torch.arange(POSITIONS) < 2).long().expand_as(ids).contiguous()
    return {"input_ids": ids.where(mask == 1, 1), "attention_mask": mask, "global_attention_mask": is_global}


def masked_texts() -> Batch:
    batch = texts(3)
    is_hidden = (torch.rand(3, POSITIONS) < 0.2) & (batch["attention_mask"] == 1)
    return batch | {"labels": batch["input_ids"].where(is_hidden, -100)}


def choices() -> Batch:
    batch = texts(2, 3)
    batch["attention_mask"][0, 2] = 0  # the first example has two choices only
    batch["global_attention_mask"] *= batch["attention_mask"]
    return batch | {"labels": torch.tensor([1, 2])}


def hops() -> Batch:
    places, labels = torch.tensor([[1, 4], [2, 5], [3, -1]]), torch.tensor([[1, 0], [0, 1], [1, -100]])
    return {
        **texts(3),
        **dict.fromkeys(("sentence_positions", "paragraph_positions"), places),
        **dict.fromkeys(("sentence_labels", "paragraph_labels", "start_positions", "end_positions"), labels),
        "answer_type": torch.tensor([0, 2, 1]),
    }


def without_globals(model: torch.nn.Module) -> torch.nn.Module:
    """Return a model whose batches have no global token: DeepSpeed would make up gradients on the CPU."""
    freeze_global_projections(model)
    return model


def clustered() -> Batch:
    """Return documents of a word a token, the first read in two segments, the second in one."""
    batch = texts(2, 2)
    batch["attention_mask"][1, 1] = 0
    del batch["global_attention_mask"]
    places = torch.arange(30)
    second = places.where(places < 12, -1)
    numbers = torch.stack([places, second])
    return batch | {
        "token_positions": torch.stack([places + 25, second]),
        **dict.fromkeys(("word_ids", "sentence_ids", "speaker_ids"), numbers),
        "sentence_ids": numbers.div(10, rounding_mode="floor"),
        "genre": torch.tensor([0, 3]),
        "labels": torch.tensor([[[0, 1, 0], [5, 5, 0]], [[2, 3, 0], [-1, -1, -1]]]),
    }


def summarized() -> Batch:
    return texts(3) | {"labels": torch.randint(5, IDS, (3, 9)).index_fill(1, torch.tensor([8]), -100)}


CASES: dict[str, tuple[Callable[[], torch.nn.Module], Objective, Callable[[], Batch]]] = {
    "masked LM": (lambda: LongformerForMaskedLM(LONGFORMER), LABELS, masked_texts),
    "classification": (
        lambda: LongformerForSequenceClassification(LONGFORMER.replaced(num_labels=3)),
        weighted_labels([1.0, 2.0, 0.5]),
        lambda: texts(3) | {"labels": torch.tensor([0, 2, 1])},
    ),
    "multiple choice": (lambda: LongformerForMultipleChoice(LONGFORMER), weighted_labels(None), choices),
    "answers": (
        lambda: LongformerForQuestionAnswering(LONGFORMER),
        ANSWER_SPANS,
        lambda: (
            texts(3) | dict.fromkeys(("start_positions", "end_positions"), torch.tensor([[3, 5], [0, -100], [4, 4]]))
        ),
    ),
    "hotpotqa": (lambda: LongformerForMultiHopAnswers(LONGFORMER), HOPS, hops),
    "coarse-to-fine coreference": (
        lambda: without_globals(
            LongformerForCoreference(LONGFORMER.replaced(coreference={**CLUSTERED, "kind": "coarse_to_fine"}))
        ),
        CLUSTERS,
        clustered,
    ),
    "start-to-end coreference": (
        lambda: without_globals(
            LongformerForCoreference(LONGFORMER.replaced(coreference={**CLUSTERED, "kind": "start_to_end"}))
        ),
        CLUSTERS,
        clustered,
    ),
    "summarization": (lambda: LEDForConditionalGeneration(LED), summary_tokens(0.1), summarized),
}


def pretend_accelerator() -> Any:
    """Return DeepSpeed's accelerator, which from now on takes `DEVICE` for where it is."""
    accelerator = get_accelerator()
    accelerator.current_device_name = accelerator.device_name = lambda *_: str(DEVICE)
    return accelerator


def waits_of_a_step(ranks: Any, settings: EngineSettings, cases: list[str]) -> dict[str, list[str]]:
    """Return what waited for the device in the second of two steps of every case."""
    accelerator = pretend_accelerator()
    found = {}
    for case in cases:
        build, objective, batch = CASES[case]
        torch.manual_seed(0)
        with pretend_device() as waits:
            accelerator.synchronize = lambda *_, waits=waits: waits.append("synchronize")
            engine = TrainingEngine(as_on_a_device(build().train()), settings, replace(ranks, device=DEVICE))
            for _ in range(2):
                waits.clear()
                batches = iter([batch(), batch()])
                outcome = engine.train_step(batches, objective, learning_rate=0.01, guard=no_spikes())
                assert outcome.applied
        found[case] = waits
    return found


@pytest.mark.parametrize(
    ("zero_stage", "precision", "cases"),
    [
        (0, "fp32", list(CASES)),
        (0, "bf16", ["masked LM"]),
        (1, "fp32", ["masked LM"]),
        (2, "bf16", list(CASES)),
    ],
)
def test_a_step_with_padding_global_tokens_and_accumulation_waits_once(
    zero_stage: Any, precision: Any, cases: list[str]
) -> None:
    settings = replace(SETTINGS, zero_stage=zero_stage, precision=precision, accumulation_steps=2)
    assert in_ranks(1, waits_of_a_step, settings, cases) == [{case: ["tolist"] for case in cases}]


class Stream:
    """Does nothing but remember what it waits for."""

    def __init__(self, name: str = "reduction") -> None:
        self.name, self.waited_for = name, set[str]()

    def wait_stream(self, other: "Stream") -> None:
        self.waited_for.add(other.name)


def overlapped_step(_: Any, settings: EngineSettings) -> tuple[list[str], set[str], set[str]]:
    """Take a step whose gradients are reduced on a stream of its own; return the waits, and which stream waited."""
    accelerator, computing = pretend_accelerator(), Stream("computing")
    type(accelerator).Stream = Stream
    accelerator.current_stream = lambda *_: computing
    accelerator.stream = lambda _: nullcontext()
    accelerator.is_synchronized_device = accelerator.resolves_data_dependency = lambda: False
    torch.Tensor.record_stream = lambda *_: None
    with pretend_device() as waits:
        accelerator.synchronize = lambda *_: waits.append("synchronize")
        model = SmallModel().to(DEVICE)
        config = deepspeed_config(settings, 1000, overlaps=True)
        adamw = torch.optim.AdamW(parameter_groups(model, 0.1))
        engine, optimizer = deepspeed_compat.initialize(model, adamw, config)
        tokens = global_batch(0, 2).to(DEVICE)
        waits.clear()
        computing.waited_for.clear()
        engine.backward(NEXT_CHARACTER.loss(engine, {"tokens": tokens}))
        waited_for = set(computing.waited_for)
        deepspeed_compat.step(engine, optimizer, lambda _: 1.0)
    return list(waits), waited_for, optimizer.reduction_stream.waited_for


@pytest.mark.parametrize("zero_stage", [1, 2])
def test_gradients_are_reduced_on_a_stream_of_their_own_and_the_host_waits_for_none(zero_stage: Any) -> None:
    settings = replace(SETTINGS, zero_stage=zero_stage)
    assert in_ranks(1, overlapped_step, settings) == [([], {"reduction"}, {"computing"})]
