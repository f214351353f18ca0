"""Claims about the paper's evaluation: what is scored, with which context, by how many ranks."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from longformer.evaluation.bits import evaluate_bits_per_character
from longformer.models.char_lm.config import CharacterModelConfig
from longformer.models.char_lm.model import CharacterLM

VOCABULARY = 7


def small_model(position: str = "rotary") -> CharacterLM:
    torch.manual_seed(0)
    config = CharacterModelConfig(
        vocabulary_size=VOCABULARY,
        layers=2,
        hidden_size=16,
        heads=2,
        feedforward_size=32,
        windows=(50, 50),
        dilations=(1, 2),
        dilated_heads=1,
        position=position,
        dropout=0.3,
    )
    model = CharacterLM(config)
    with torch.no_grad():  # far from uniform predictions, so that a wrong context shows
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


def some_text(characters: int) -> np.ndarray:
    return np.random.default_rng(characters).integers(0, VOCABULARY, characters).astype(np.uint8)


def one_position_at_a_time(model: nn.Module, text: np.ndarray, sequence_length: int, stride: int) -> float:
    """Score each character alone, given exactly the context that its place in the scheme allows."""
    model.eval()
    last = len(text) - 1
    nats = 0.0
    for position in range(1, len(text)):
        steps = max(0, math.ceil((position - sequence_length) / stride))
        start = max(0, min(steps * stride, last - sequence_length))
        with torch.no_grad():
            logits = model(torch.tensor(text[None, start:position].astype(np.int64)))[0, -1]
        nats -= logits.log_softmax(-1)[text[position]].item()
    return nats / last / math.log(2)


@settings(max_examples=25)
@given(st.integers(2, 60), st.integers(1, 24), st.data())
def test_bits_equal_scoring_each_position_alone(characters: int, sequence_length: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, sequence_length))
    model, text = small_model(), some_text(characters)
    result = evaluate_bits_per_character(
        model, text, sequence_length=sequence_length, stride=stride, batch_size=data.draw(st.integers(1, 5))
    )
    assert result.bits == pytest.approx(one_position_at_a_time(model, text, sequence_length, stride), rel=1e-5)


@settings(max_examples=100)
@given(st.integers(2, 300), st.integers(1, 50), st.data())
def test_every_character_but_the_first_is_scored_once(
    characters: int, sequence_length: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, sequence_length))

    def gives_one_bit_to_its_neighbour(tokens: Tensor) -> Tensor:
        # The character after token t is t + 1; only the true targets' probabilities reach the result.
        return nn.functional.one_hot((tokens + 1) % characters, characters) * math.log(characters - 1)

    result = evaluate_bits_per_character(
        gives_one_bit_to_its_neighbour,
        torch.arange(characters),
        sequence_length=sequence_length,
        stride=stride,
        batch_size=4,
    )
    assert result.scored == characters - 1
    assert result.bits == pytest.approx(1.0)
    assert result.scored_without_full_context == min(characters - 1, sequence_length - stride)


def test_the_papers_setting_leaves_31744_characters_without_full_context() -> None:
    result = evaluate_bits_per_character(
        lambda tokens: torch.zeros(*tokens.shape, 4),
        np.zeros(40_000, dtype=np.uint8),
        sequence_length=32_256,
        stride=512,
        batch_size=4,
    )
    assert result.scored_without_full_context == 31_744
    assert result.bits == pytest.approx(2.0)


def test_dropout_is_off_while_evaluating_and_on_again_after() -> None:
    model = small_model().train()
    first, second = (
        evaluate_bits_per_character(model, some_text(100), sequence_length=20, stride=5, batch_size=3) for _ in range(2)
    )
    assert first == second
    assert model.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 9}, "stride"),
        ({"stride": 0}, "stride"),
        ({"sequence_length": 0}, "sequence_length"),
        ({"batch_size": 0}, "batch_size"),
        ({"rank": 2, "world_size": 2}, "rank"),
        ({"tokens": np.zeros(1, dtype=np.uint8)}, "1 characters"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, object], message: str) -> None:
    valid = {"tokens": some_text(20), "sequence_length": 8, "stride": 4, "batch_size": 2}
    with pytest.raises(ValueError, match=message):
        evaluate_bits_per_character(small_model(), **{**valid, **arguments})


def evaluate_on_a_rank(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    model, calls = small_model(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    result = evaluate_bits_per_character(
        model, some_text(200), sequence_length=32, stride=8, batch_size=3, rank=rank, world_size=world_size
    )
    torch.save({"bits": result.bits, "scored": result.scored, "calls": len(calls)}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_ranks_agree_with_one_process_and_share_the_calls_of_the_model(tmp_path: Path) -> None:
    # 22 sequences in 8 batches: three ranks have 3, 3 and 2 of them.
    torch.multiprocessing.spawn(evaluate_on_a_rank, args=(3, str(tmp_path)), nprocs=3)
    alone = evaluate_bits_per_character(small_model(), some_text(200), sequence_length=32, stride=8, batch_size=3)
    for rank in range(3):
        seen = torch.load(tmp_path / f"{rank}.pt")
        assert seen["calls"] == (3, 3, 2)[rank]
        assert seen["scored"] == alone.scored
        assert seen["bits"] == pytest.approx(alone.bits, rel=1e-12)
