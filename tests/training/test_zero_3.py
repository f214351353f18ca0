"""Every task learns and is evaluated under ZeRO 3 as it is without ZeRO."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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
    LongformerForTokenClassification,
)
from longformer.models.common.freezing import freeze_global_projections
from longformer.training import engine as engine_module
from longformer.training.distributed import Ranks
from longformer.training.engine import TrainingEngine
from longformer.training.engine_settings import EngineSettings, deepspeed_config
from longformer.training.objectives import ANSWER_SPANS, CLUSTERS, HOPS, LABELS, summary_tokens, weighted_labels
from tests.training.rank_group import in_ranks
from tests.training.small_model import SETTINGS, no_spikes

STEPS, ROWS, LENGTH, VOCABULARY = 4, 4, 48, 300
ENCODER = LongformerConfig(
    vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=LENGTH + 2, attention_window=16, pad_token_id=1, sep_token_id=2, num_labels=3,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
SUMMARIZER = LEDConfig(
    vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
    decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, attention_window=16,
    max_encoder_position_embeddings=LENGTH, max_decoder_position_embeddings=16, dropout=0.0,
)  # fmt: skip


def masked_lm() -> nn.Module:
    model = LongformerForMaskedLM(ENCODER)
    freeze_global_projections(model)
    return model


def texts(step: int, *, most_global: int = 0) -> tuple[dict[str, Tensor], torch.Generator]:
    """Return the texts of a step, some padded, each with 1 to `most_global` global tokens, and what draws their labels.

    With few of them attention reads the weights of its global projections, with many it calls these.
    """
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(3, VOCABULARY, (ROWS, LENGTH), generator=generator)
    mask = torch.arange(LENGTH) < torch.randint(LENGTH // 2, LENGTH + 1, (ROWS, 1), generator=generator)
    batch = {"input_ids": ids.where(mask, 1), "attention_mask": mask.long()}
    if most_global:
        ends = torch.randint(1, most_global + 1, (ROWS, 1), generator=generator)
        batch["global_attention_mask"] = (torch.arange(LENGTH) < ends).long()
    return batch, generator


def masked_texts(step: int) -> dict[str, Tensor]:
    batch, generator = texts(step)
    hidden = (torch.rand(ROWS, LENGTH, generator=generator) < 0.15) & batch["attention_mask"].bool()
    return batch | {"labels": batch["input_ids"].where(hidden, -100)}


def documents(step: int) -> dict[str, Tensor]:
    batch, generator = texts(step, most_global=1)
    return batch | {"labels": torch.randint(3, VOCABULARY, (ROWS, 12), generator=generator)}


def classified_texts(step: int) -> dict[str, Tensor]:
    batch, generator = texts(step, most_global=20)
    return batch | {"labels": torch.randint(0, 3, (ROWS,), generator=generator)}


def labelled_words(step: int) -> dict[str, Tensor]:
    batch, generator = texts(step)
    labels = torch.randint(0, 3, (ROWS, LENGTH), generator=generator)
    return batch | {"labels": labels.where(batch["attention_mask"].bool(), -100)}


def choices(step: int) -> dict[str, Tensor]:
    batch, generator = texts(step, most_global=6)
    paired = {name: each.unflatten(0, (ROWS // 2, 2)) for name, each in batch.items()}
    return paired | {"labels": torch.randint(0, 2, (ROWS // 2,), generator=generator)}


def answered_questions(step: int) -> dict[str, Tensor]:
    batch, generator = texts(step, most_global=6)
    starts = torch.randint(0, LENGTH // 2, (ROWS, 2), generator=generator)
    return batch | {"start_positions": starts, "end_positions": starts}


def hops(step: int) -> dict[str, Tensor]:
    batch = answered_questions(step)
    places = torch.tensor([[1, 7, 12], [2, 9, -1]]).repeat(ROWS // 2, 1)
    labels = torch.tensor([[1, 0, 1], [0, 1, -100]]).repeat(ROWS // 2, 1)
    return batch | {
        "answer_type": torch.arange(ROWS) % 3,
        **dict.fromkeys(("sentence_positions", "paragraph_positions"), places),
        **dict.fromkeys(("sentence_labels", "paragraph_labels"), labels),
    }


def clustered_documents(step: int) -> dict[str, Tensor]:
    """Return documents of a word a token, of which one is damaged; ranks read other numbers of tokens."""
    batch, generator = texts(step)
    batch["attention_mask"][0, 2:] = 0
    lengths = batch["attention_mask"].sum(1, keepdim=True) - 2
    places = torch.arange(LENGTH - 2)
    numbers = places.where(places < lengths, -1)
    firsts = torch.arange(0, 20, 2).repeat(ROWS, 1).where(lengths > 0, -1)
    clusters = torch.randint(0, 3, firsts.shape, generator=generator).where(firsts >= 0, -1)
    return {
        "input_ids": batch["input_ids"][:, None],
        "attention_mask": batch["attention_mask"][:, None],
        "token_positions": numbers.where(numbers < 0, numbers + 1),
        "word_ids": numbers,
        "sentence_ids": numbers.div(12, rounding_mode="floor"),
        "speaker_ids": numbers.where(numbers < 0, numbers % 3),
        "genre": torch.arange(ROWS),
        "labels": torch.stack([firsts, firsts, clusters], 2),
    }


def clustered(kind: str) -> LongformerConfig:
    shape = {"max_span_tokens": 4, "max_antecedents": 5, "head_size": 24, "feature_size": 4, "dropout": 0.0}
    return ENCODER.replaced(coreference={"kind": kind, **shape})


def mention_scores_of(model: Any, batch: dict[str, Tensor]) -> list[float]:
    scores = model(**{name: each for name, each in batch.items() if name != "labels"}).mention_scores
    return scores[scores > -torch.inf].tolist()


def hop_chances_of(model: Any, batch: dict[str, Tensor]) -> list[float]:
    read = {name: each for name, each in batch.items() if "label" not in name and name not in HOP_LABELS}
    return model(**read).sentence_logits.sigmoid().flatten().tolist()


def chances_of(model: Any, batch: dict[str, Tensor]) -> list[float]:
    read = {name: each for name, each in batch.items() if not name.endswith("_positions")}
    return model(**read).start_logits.softmax(-1).flatten().tolist()


def losses_of(model: Any, batch: dict[str, Tensor]) -> list[float]:
    return [float(model(**batch).loss)]


def written(model: Any, batch: dict[str, Tensor]) -> list[float]:
    source = {name: each for name, each in batch.items() if name != "labels"}
    return [float(each) for each in model.generate(**source, num_beams=2, max_length=8).flatten()]


TASKS: dict[str, Any] = {
    "masked_lm": (masked_lm, masked_texts, LABELS, losses_of),
    "summarization": (lambda: LEDForConditionalGeneration(SUMMARIZER), documents, summary_tokens(0.1), written),
    "sequence_classification": (
        lambda: LongformerForSequenceClassification(ENCODER), classified_texts, weighted_labels((1.0, 2.0, 1.0)),
        losses_of,
    ),
    "token_classification": (
        lambda: LongformerForTokenClassification(ENCODER), labelled_words, weighted_labels(None), losses_of
    ),
    "hotpotqa": (lambda: LongformerForMultiHopAnswers(ENCODER), hops, HOPS, hop_chances_of),
    "coarse-to-fine coreference": (
        lambda: LongformerForCoreference(clustered("coarse_to_fine")), clustered_documents, CLUSTERS, mention_scores_of
    ),
    "start-to-end coreference": (
        lambda: LongformerForCoreference(clustered("start_to_end")), clustered_documents, CLUSTERS, mention_scores_of
    ),
    "extractive_qa": (lambda: LongformerForQuestionAnswering(ENCODER), answered_questions, ANSWER_SPANS, chances_of),
    "multiple_choice": (lambda: LongformerForMultipleChoice(ENCODER), choices, weighted_labels(None), losses_of),
}  # fmt: skip
HOP_LABELS = ("start_positions", "end_positions", "answer_type")
OPTIONS = [(True, False), (False, True)]


def everything_sharded(*arguments: Any, **options: Any) -> dict[str, Any]:
    """Return DeepSpeed's config, but for tensors that ZeRO 3 leaves whole because they are small."""
    config = deepspeed_config(*arguments, **options)
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return config


def train_and_evaluate(
    ranks: Ranks, task: str, settings: EngineSettings, recompute: bool
) -> tuple[list[float], list[float], dict[str, tuple[int, ...]]]:
    """Train, evaluate after every second step, and return the losses, what was evaluated, and the weights' shapes."""
    build, batch_of, objective, evaluate = TASKS[task]
    torch.manual_seed(1)
    model = build().train()
    if recompute:
        model.gradient_checkpointing_enable()
    with patch.object(engine_module, "deepspeed_config", everything_sharded):
        engine = TrainingEngine(model, settings, ranks)
    losses: list[float] = []
    evaluated: list[float] = []
    for step in range(STEPS):
        batch = {name: each.chunk(ranks.world_size)[ranks.rank] for name, each in batch_of(step).items()}
        outcome = engine.train_step(iter([batch]), objective, learning_rate=3e-3, guard=no_spikes())
        losses.append(outcome.loss)
        if step % 2:
            with engine.whole_model() as whole, torch.no_grad():
                whole.eval()
                # A rank may have nothing left to evaluate.
                evaluated += evaluate(whole, batch_of(100)) if ranks.is_first else []
                whole.train()
    return losses, evaluated, {name: tuple(each.shape) for name, each in engine.full_weights().items()}


@pytest.mark.parametrize(
    ("recompute", "offload"), [(False, False), *(pytest.param(*each, marks=pytest.mark.slow) for each in OPTIONS)]
)
@pytest.mark.parametrize(
    "task",
    [each if each in ("masked_lm", "summarization") else pytest.param(each, marks=pytest.mark.slow) for each in TASKS],
)
def test_sharded_weights_learn_and_are_evaluated_like_whole_ones(task: str, recompute: bool, offload: bool) -> None:
    sharded = replace(SETTINGS, zero_stage=3, offload_optimizer=offload)
    (expected, evaluated, shapes), (found, evaluated_sharded, gathered_shapes) = (
        in_ranks(2, train_and_evaluate, task, settings, recompute)[0]
        for settings in (replace(SETTINGS, zero_stage=0), sharded)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(evaluated_sharded, evaluated, atol=1e-4)
    assert len(evaluated) > 1
    assert gathered_shapes == shapes
