"""The engine does what plain PyTorch would do, whatever is sharded, accumulated or spread over ranks."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from longformer.training.engine import StepOutcome
from longformer.training.engine_settings import EngineSettings, parameter_groups
from longformer.training.objectives import NEXT_CHARACTER, Lengths, Objective, lengths_of_streams, next_character_loss
from tests.training.rank_group import in_ranks
from tests.training.small_model import (
    SETTINGS,
    SmallModel,
    global_batch,
    micro_batches,
    no_spikes,
    small_engine,
    train_small,
)

STEPS, SIZE = 8, 8


@pytest.fixture(scope="module")
def plain_pytorch() -> tuple[list[float], list[float], dict[str, np.ndarray]]:
    return train_plainly()


def train_plainly(default: float = 0.01, **rates: float) -> tuple[list[float], list[float], dict[str, np.ndarray]]:
    """The oracle: one process, whole batches, no DeepSpeed; `rates` are of modules with one of their own."""
    model = SmallModel()
    groups = [
        {"params": [parameter], "weight_decay": group["weight_decay"], "lr": rates.get(name.split(".")[0], default)}
        for group in parameter_groups(model, SETTINGS.weight_decay)
        for name, parameter in model.named_parameters()
        if any(parameter is each for each in group["params"])
    ]
    optimizer = torch.optim.AdamW(groups, betas=SETTINGS.adam_betas, eps=SETTINGS.adam_epsilon)
    losses, norms = [], []
    for step in range(STEPS):
        loss = next_character_loss(model, {"tokens": global_batch(step, SIZE)})
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.gradient_clipping)))
        optimizer.step()
        losses.append(loss.item())
    return losses, norms, {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_every_zero_stage_trains_like_plain_pytorch(zero_stage: Any, world_size: int, plain_pytorch: Any) -> None:
    settings = replace(SETTINGS, zero_stage=zero_stage)
    expected_losses, expected_norms, expected_weights = plain_pytorch
    for losses, norms, weights in in_ranks(world_size, train_small, settings, STEPS, SIZE):
        np.testing.assert_allclose(losses, expected_losses, atol=1e-4)
        np.testing.assert_allclose(norms, expected_norms, rtol=1e-3)
        assert weights.keys() == expected_weights.keys()
        for name, expected in expected_weights.items():
            np.testing.assert_allclose(weights[name], expected, atol=2e-4, err_msg=name)


@pytest.mark.parametrize(
    ("zero_stage", "precision", "layer_decay", "factor"),
    [
        (0, "fp32", 0.25, 1.0),
        (2, "fp32", 0.25, 1.0),
        (3, "fp32", 0.25, 2.0),
        (0, "bf16", 0.25, 1.0),
        (2, "fp32", 1.0, 2.0),
    ],
)
def test_lower_layers_and_heads_learn_by_rates_of_their_own(
    zero_stage: Any, precision: Any, layer_decay: float, factor: float
) -> None:
    settings = replace(
        SETTINGS,
        zero_stage=zero_stage,
        precision=precision,
        layer_decay=layer_decay,
        head_learning_rate_factor=factor,
    )
    losses, _, expected = train_plainly(default=0.01 * factor, embedding=0.01 * layer_decay)
    found, _, weights = in_ranks(2, train_small, settings, STEPS, SIZE)[0]
    tolerance = 1e-4 if precision == "fp32" else 0.05
    np.testing.assert_allclose(found, losses, atol=tolerance)
    assert abs(weights["embedding.weight"] - expected["embedding.weight"]).max() < 2 * tolerance


@pytest.mark.parametrize(
    "environment",
    [
        {f"OMPI_COMM_WORLD_{name}": value for name, value in zip(("RANK", "LOCAL_RANK", "SIZE"), "001", strict=True)},
        {"MASTER_ADDR": "nowhere", "MASTER_PORT": "1", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"},
    ],
    ids=["mpirun", "torchrun"],
)
def test_ranks_do_not_believe_what_a_launcher_above_them_says(environment: dict[str, str], plain_pytorch: Any) -> None:
    for losses, *_ in in_ranks(2, train_small, SETTINGS, STEPS, SIZE, environment=environment):
        np.testing.assert_allclose(losses, plain_pytorch[0], atol=1e-4)


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_gradient_accumulation_equals_one_large_batch(zero_stage: Any, plain_pytorch: Any) -> None:
    settings = replace(SETTINGS, zero_stage=zero_stage, accumulation_steps=4)
    for losses, norms, _ in in_ranks(2, train_small, settings, STEPS, SIZE):
        np.testing.assert_allclose(losses, plain_pytorch[0], atol=1e-4)
        np.testing.assert_allclose(norms, plain_pytorch[1], rtol=1e-3)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_an_optimizer_in_main_memory_trains_like_plain_pytorch_and_skips_overflows(
    zero_stage: Any, plain_pytorch: Any
) -> None:
    settings = replace(SETTINGS, zero_stage=zero_stage, offload_optimizer=True, accumulation_steps=2)
    for losses, norms, _ in in_ranks(2, train_small, settings, STEPS, SIZE):
        np.testing.assert_allclose(losses, plain_pytorch[0], atol=1e-4)
        np.testing.assert_allclose(norms, plain_pytorch[1], rtol=1e-3)
    for applied, changed in in_ranks(2, _overflow_in_step_1, replace(settings, precision="bf16", accumulation_steps=1)):
        assert applied == changed == [True, False, True]


def test_the_same_ranks_train_bitwise_the_same() -> None:
    dropout = {"dropout": 0.2}
    first = in_ranks(2, train_small, SETTINGS, STEPS, SIZE, dropout)
    again = in_ranks(2, train_small, SETTINGS, STEPS, SIZE, dropout)
    assert [losses for losses, _, _ in first] == [losses for losses, _, _ in again]
    assert first[0][0] != in_ranks(2, train_small, SETTINGS, STEPS, SIZE, {"dropout": 0.0})[0][0]


def test_zero_3_gathers_weights_that_are_really_sharded() -> None:
    # Adam divides by |gradient| + epsilon. Some of the 120,000 gradients are near 1e-8, where the order of a sum alone
    # changes a weight by 2.5e-5, also in plain PyTorch; an epsilon far above their rounding leaves 2e-7.
    wide, settings = {"width": 200}, replace(SETTINGS, adam_epsilon=1e-4)
    sharded = in_ranks(2, train_small, replace(settings, zero_stage=3), 3, SIZE, wide)[0]
    whole = in_ranks(2, train_small, replace(settings, zero_stage=0), 3, SIZE, wide)[0]
    assert whole[2]["mix.weight"].shape == (200, 200, 3)
    np.testing.assert_allclose(sharded[0], whole[0], atol=1e-5)
    np.testing.assert_allclose(sharded[2]["mix.weight"], whole[2]["mix.weight"], atol=1e-6)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_bf16_keeps_fp32_weights_close_to_fp32_training(zero_stage: Any, plain_pytorch: Any) -> None:
    settings = replace(SETTINGS, precision="bf16", zero_stage=zero_stage)
    losses, norms, weights = in_ranks(2, train_small, settings, STEPS, SIZE)[0]
    np.testing.assert_allclose(losses, plain_pytorch[0], atol=0.05)
    np.testing.assert_allclose(norms, plain_pytorch[1], rtol=0.1)
    rounded = torch.from_numpy(weights["mix.weight"]).bfloat16().float().numpy()
    assert (weights["mix.weight"] != rounded).any(), "the master weights were rounded to bf16"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_a_gradient_that_is_not_finite_is_skipped_reported_and_changes_no_weight(
    zero_stage: Any, precision: Any
) -> None:
    settings = replace(SETTINGS, precision=precision, zero_stage=zero_stage)
    for applied, changed in in_ranks(2, _overflow_in_step_1, settings):
        assert applied == [True, False, True]
        assert changed == [True, False, True]


def _overflow_in_step_1(ranks: Any, settings: EngineSettings) -> tuple[list[bool], list[bool]]:
    engine = small_engine(ranks, settings)
    batches = micro_batches(ranks, settings, size=4)
    applied, changed = [], []
    for step in range(3):
        before = engine.full_weights()
        objective = Objective(_finite_loss_without_finite_gradient, lengths_of_streams) if step == 1 else NEXT_CHARACTER
        applied.append(engine.train_step(batches, objective, learning_rate=0.01, guard=no_spikes()).applied)
        after = engine.full_weights()
        changed.append(any(not before[name].equal(after[name]) for name in before))
    return applied, changed


@pytest.mark.parametrize("zero_stage", [0, 2])
def test_every_prediction_counts_alike_however_unevenly_micro_batches_hold_them(zero_stage: Any) -> None:
    """Of 8 rows only 3 have predictions: two of them in one micro-batch, and some micro-batches have none."""
    settings = replace(SETTINGS, zero_stage=zero_stage)
    expected = in_ranks(1, _train_on_some_rows, replace(settings, micro_batch_size=8))[0]
    for losses, weights in in_ranks(
        2, _train_on_some_rows, replace(settings, micro_batch_size=2, accumulation_steps=2)
    ):
        np.testing.assert_allclose(losses, expected[0], atol=1e-5)
        for name, weight in expected[1].items():
            np.testing.assert_allclose(weights[name], weight, atol=2e-5, err_msg=name)


def test_a_global_batch_without_predictions_is_a_step_of_loss_0() -> None:
    for losses, _ in in_ranks(2, _train_on_some_rows, replace(SETTINGS, micro_batch_size=4), ()):
        assert losses == [0.0, 0.0, 0.0]


def test_tokens_of_all_ranks_and_micro_batches_are_counted_without_padding() -> None:
    alone = in_ranks(1, _count_tokens, replace(SETTINGS, micro_batch_size=8))
    shared = in_ranks(2, _count_tokens, replace(SETTINGS, micro_batch_size=2, accumulation_steps=2))
    read = [10 * SIZE + sum(range(SIZE)), 20 * SIZE + sum(range(SIZE))]
    assert [*alone, *shared] == [[(count + SIZE, 1.5 * count) for count in read]] * 3


def _count_tokens(ranks: Any, settings: EngineSettings) -> list[tuple[int, float]]:
    """Two steps, in the first of which row i has 10 + i tokens to read and one to write."""

    def lengths(batch: dict[str, torch.Tensor]) -> list[Lengths]:
        return [Lengths(read, 1) for read in batch["read"].tolist()]

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        for step in itertools.count():
            read = 10 * (step + 1) + torch.arange(SIZE)
            for rows in torch.arange(SIZE).chunk(ranks.world_size)[ranks.rank].split(settings.micro_batch_size):
                yield {"tokens": global_batch(step, SIZE)[rows], "read": read[rows]}

    engine, taken = small_engine(ranks, settings), batches()
    objective = Objective(next_character_loss, lengths)
    outcomes = [
        engine.train_step(
            taken, objective, learning_rate=0.01, guard=no_spikes(), flops=lambda length: 1.5 * length.read
        )
        for _ in range(2)
    ]
    return [(outcome.tokens, outcome.flops) for outcome in outcomes]


def _train_on_some_rows(
    ranks: Any, settings: EngineSettings, predicted: tuple[int, ...] = (0, 1, 6)
) -> tuple[list[float], dict[str, np.ndarray]]:
    def batches() -> Iterator[dict[str, torch.Tensor]]:
        counts = torch.tensor([float(row in predicted) for row in range(SIZE)])
        for step in itertools.count():
            tokens = global_batch(step, SIZE)
            for rows in torch.arange(SIZE).chunk(ranks.world_size)[ranks.rank].split(settings.micro_batch_size):
                yield {"tokens": tokens[rows], "counts": counts[rows]}

    def loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = model(batch["tokens"][:, :-1]).transpose(1, 2)
        nats = torch.nn.functional.cross_entropy(logits, batch["tokens"][:, 1:], reduction="none").mean(1)
        return (nats * batch["counts"]).sum() / batch["counts"].sum().clamp(min=1)

    engine = small_engine(ranks, settings)
    objective = Objective(loss, lengths_of_streams, lambda batch: int(batch["counts"].sum()))
    taken = batches()
    losses = [engine.train_step(taken, objective, learning_rate=0.01, guard=no_spikes()).loss for _ in range(3)]
    return losses, {name: tensor.numpy() for name, tensor in engine.full_weights().items()}


def _finite_loss_without_finite_gradient(model: Any, batch: Any) -> torch.Tensor:
    logits = model(batch["tokens"][:, :-1])
    return 1.0 + (logits.float().sum() * 0).sqrt()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_a_refused_loss_changes_no_weight_on_any_rank_and_the_next_step_is_as_if_it_had_not_been(
    zero_stage: Any, precision: Any
) -> None:
    settings = replace(SETTINGS, zero_stage=zero_stage, precision=precision, micro_batch_size=1, accumulation_steps=2)
    disturbed = in_ranks(2, _lose_on_rank_1_in_step_1, settings, True)
    undisturbed = in_ranks(2, _lose_on_rank_1_in_step_1, settings, False)
    for outcomes, changed in disturbed:
        assert [outcome.refusal for outcome in outcomes] == [None, "the loss is nan on rank 1", None]
        assert [outcome.applied for outcome in outcomes] == changed == [True, False, True]
    for (outcomes, _), (expected, _) in zip(disturbed, undisturbed, strict=True):
        assert (outcomes[2].loss, outcomes[2].gradient_norm) == (expected[1].loss, expected[1].gradient_norm)


def _lose_on_rank_1_in_step_1(
    ranks: Any, settings: EngineSettings, disturbed: bool
) -> tuple[list[StepOutcome], list[bool]]:
    engine = small_engine(ranks, settings)
    outcomes, changed = [], []
    for step in range(3):
        before = engine.full_weights()
        is_lost = disturbed and step == 1 and ranks.rank == 1

        def loss(model: Any, batch: Any, factor: float = torch.nan if is_lost else 1.0) -> torch.Tensor:
            return next_character_loss(model, batch) * factor

        # The lost step is an extra one: the others see the same batches as without it.
        batches = micro_batches(ranks, settings, size=4, first_step=step - 1 if disturbed and step == 2 else step)
        objective = Objective(loss, lengths_of_streams)
        outcomes.append(engine.train_step(batches, objective, learning_rate=0.01, guard=no_spikes()))
        after = engine.full_weights()
        changed.append(any(not before[name].equal(after[name]) for name in before))
    return outcomes, changed


def test_a_wish_to_stop_on_one_rank_reaches_every_rank_in_the_same_step() -> None:
    assert in_ranks(2, _stop_on_rank_1_in_step_2, SETTINGS) == [[False, False, True]] * 2


def _stop_on_rank_1_in_step_2(ranks: Any, settings: EngineSettings) -> list[bool]:
    engine = small_engine(ranks, settings)
    batches = micro_batches(ranks, settings, size=4)
    return [
        engine.train_step(
            batches,
            NEXT_CHARACTER,
            learning_rate=0.01,
            guard=no_spikes(),
            stop_requested=ranks.rank == 1 and step == 2,
        ).stop_requested
        for step in range(3)
    ]


def test_only_the_matrices_of_linear_maps_decay() -> None:
    model = SmallModel()
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, spared = parameter_groups(model, 0.1)
    assert {names[parameter] for parameter in decayed["params"]} == {"mix.weight", "output.weight"}
    assert len(spared["params"]) == len(names) - 2
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
