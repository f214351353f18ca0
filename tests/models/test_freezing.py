"""Claims: with the pretrained part frozen, training moves the new position rows and leaves all else bit by bit."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from longformer import models
from longformer.interop.convert import convert
from longformer.models.common.freezing import FREEZE_PRETRAINED, PRETRAINED_ROWS, freeze_pretrained
from longformer.training.distributed import Ranks
from longformer.training.engine import TrainingEngine
from longformer.training.objectives import Objective
from tests.training.rank_group import in_ranks
from tests.training.small_model import SETTINGS, no_spikes

TABLE = "longformer.embeddings.position_embeddings.weight"
KNOWN, LENGTH = 18, 60


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=KNOWN,
        type_vocab_size=1,
    )
    transformers.RobertaForMaskedLM(config).save_pretrained(tmp_path / "short")
    convert(tmp_path / "short", tmp_path / "long", max_length=LENGTH, window=8, freeze_pretrained=True)
    return tmp_path / "long"


def load(folder: Path) -> models.LongformerForMaskedLM:
    model = models.LongformerForMaskedLM.from_pretrained(folder)
    assert model.config.other[FREEZE_PRETRAINED]
    assert model.config.other[PRETRAINED_ROWS] == KNOWN
    return model


def loss_of(model: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 30, (2, LENGTH), generator=generator)
    return model(ids, labels=ids).loss


def test_weight_decay_and_momentum_leave_everything_but_the_new_rows_bit_by_bit(
    converted: Path, tmp_path: Path
) -> None:
    model = load(converted)
    before = {name: tensor.clone() for name, tensor in model.named_tensors().items()}
    first_loss = loss_of(model)
    new = freeze_pretrained(model, KNOWN)
    assert new.shape == (LENGTH + 2 - KNOWN, 16)
    torch.testing.assert_close(loss_of(model), first_loss, rtol=0, atol=0)
    # All parameters are handed over: those that are frozen must not move even so.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    assert loss_of(model) < first_loss - 0.1
    model.save_pretrained(tmp_path / "trained")
    for library in (models, transformers):
        trained = library.LongformerForMaskedLM.from_pretrained(tmp_path / "trained")
        after = dict(trained.named_parameters()) if library is transformers else trained.named_tensors()
        for name, tensor in before.items():
            kept = slice(KNOWN if name == TABLE else None)
            assert torch.equal(after[name][kept], tensor[kept])
        assert not (after[TABLE][KNOWN:] == before[TABLE][KNOWN:]).all(1).any()


def train_with_deepspeed(ranks: Ranks, folder: Path) -> dict[str, np.ndarray]:
    """Train for three steps; return the parameters and constants of the model as the engine leaves them."""
    model = load(folder)
    freeze_pretrained(model, KNOWN)
    engine = TrainingEngine(model, replace(SETTINGS, zero_stage=2), ranks)
    for _ in range(3):
        objective = Objective(lambda engine, _: loss_of(engine), lengths=lambda batch: [])
        engine.train_step(itertools.repeat({}), objective, learning_rate=0.05, guard=no_spikes())
    weights = engine.full_weights() | {
        f"{TABLE}.pretrained": model.longformer.embeddings.position_embeddings.pretrained
    }
    return {name: tensor.numpy() for name, tensor in weights.items()}


def test_an_optimizer_that_sees_one_flat_vector_moves_the_new_rows_only(converted: Path) -> None:
    before = {name: each.detach().numpy() for name, each in load(converted).named_parameters()}
    for after in in_ranks(2, train_with_deepspeed, converted):
        table = np.concatenate([after.pop(f"{TABLE}.pretrained"), after[TABLE]])
        for name, tensor in (after | {TABLE: table}).items():
            kept = slice(KNOWN if name == TABLE else None)
            np.testing.assert_array_equal(tensor[kept], before[name][kept], err_msg=name)
        assert not (table[KNOWN:] == before[TABLE][KNOWN:]).all(1).any()


def test_a_frozen_model_goes_on_from_its_state(converted: Path) -> None:
    model, other = load(converted), load(converted)
    with torch.no_grad():
        freeze_pretrained(model, KNOWN).add_(1)
    freeze_pretrained(other, KNOWN)
    other.load_state_dict(model.state_dict())
    assert torch.equal(loss_of(other), loss_of(model))


def test_a_model_without_new_rows_is_refused(converted: Path) -> None:
    for rows in (0, LENGTH + 2):
        with pytest.raises(ValueError, match="rows must be from 1 to 61"):
            freeze_pretrained(load(converted), rows)
