"""Claims about costs: each formula is held against the real model."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from longformer.costs.memory import Precision, TrainingLayout, Weights
from longformer.costs.peak import measured_peak_flops
from longformer.costs.training import TrainingCost
from longformer.models.char_lm.config import CHARACTER_MODEL_SIZES, CharacterModelConfig
from longformer.models.char_lm.model import CharacterLM
from longformer.models.common.weightless import without_weights
from longformer.training.objectives import Lengths

POSITIONS = ("transformer_xl", "rotary")


def config_of(**overrides: object) -> CharacterModelConfig:
    shape = {
        "vocabulary_size": 100,
        "layers": 3,
        "hidden_size": 64,
        "heads": 4,
        "feedforward_size": 256,
        "windows": (16, 16, 16),
        "dilations": (1, 2, 2),
    }
    return CharacterModelConfig(**{**shape, **overrides})


def cost_of(config: CharacterModelConfig, positions: int) -> TrainingCost:
    with without_weights():
        return TrainingCost(CharacterLM(config), [Lengths(positions)], lambda text: text.read, global_tokens=0)


def training_flops(config: CharacterModelConfig, positions: int) -> float:
    return cost_of(config, positions).flops(Lengths(positions))


def loss_of(model: CharacterLM, tokens: Tensor) -> Tensor:
    return functional.cross_entropy(model(tokens).float().flatten(0, 1), tokens.flatten())


@pytest.mark.parametrize("size", CHARACTER_MODEL_SIZES)
def test_every_named_size_is_counted(size: str) -> None:
    shape = CHARACTER_MODEL_SIZES[size]
    one_each = (1,) * shape["layers"]
    config = CharacterModelConfig(**shape, vocabulary_size=205, windows=one_each, dilations=one_each)
    millions = {"tiny": 3.5, "small": 41.1, "large": 102.5}
    with without_weights():
        model = CharacterLM(config)
    assert round(Weights.of(model).all / 1e6, 1) == millions[size]


def test_flops_per_token_do_not_grow_with_the_text_once_the_window_is_full() -> None:
    config = config_of()
    assert training_flops(config, 40_000) == pytest.approx(2 * training_flops(config, 20_000), rel=1e-3)


def kept_bytes(config: CharacterModelConfig, batch: int, positions: int) -> int:
    """Bytes of all distinct tensors that autograd keeps after a forward pass, weights aside."""
    model = CharacterLM(config)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(model, torch.randint(0, config.vocabulary_size, (batch, positions)))
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in weights)


def activations(config: CharacterModelConfig, batch: int, positions: int) -> int:
    layout = TrainingLayout(
        micro_batch_size=batch,
        ranks=1,
        zero_stage=0,
        precision="fp32",
        activation_checkpointing=config.activation_checkpointing,
    )
    return cost_of(config, positions).memory(layout).activations


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("batch", "positions"), [(1, 1024), (4, 200)])
def test_activations_are_what_autograd_keeps(position: str, dropout: float, batch: int, positions: int) -> None:
    config = config_of(position=position, dropout=dropout, windows=(32, 64, 512))
    assert activations(config, batch, positions) == pytest.approx(kept_bytes(config, batch, positions), rel=0.15)


def peak_bytes(config: CharacterModelConfig, batch: int, positions: int) -> int:
    """Largest sum of live CPU tensors during forward and backward, above what was there before."""
    model = CharacterLM(config)
    tokens = torch.randint(0, config.vocabulary_size, (batch, positions))
    loss_of(model, tokens).backward()  # gradients exist from here on
    with torch.autograd.profiler.profile(profile_memory=True, use_kineto=True) as profiler:
        loss_of(model, tokens).backward()
    live = peak = 0
    for event in profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


@pytest.mark.parametrize("position", POSITIONS)
def test_checkpointing_saves_the_memory_that_the_formula_says(position: str) -> None:
    plain, checkpointed = (
        config_of(position=position, layers=8, windows=(16,) * 8, dilations=(1,) * 8, activation_checkpointing=on)
        for on in (False, True)
    )
    # Momentary buffers of the kernels are the same in both and fall out of the difference.
    saved = peak_bytes(plain, 4, 256) - peak_bytes(checkpointed, 4, 256)
    assert activations(plain, 4, 256) - activations(checkpointed, 4, 256) == pytest.approx(saved, rel=0.15)


def test_zero_stages_shard_optimizer_gradients_and_weights_in_turn() -> None:
    def memory(stage: int, precision: Precision) -> tuple[float, ...]:
        layout = TrainingLayout(
            micro_batch_size=2, ranks=4, zero_stage=stage, precision=precision, activation_checkpointing=False
        )
        estimate = cost_of(config, 128).memory(layout)
        states = estimate.parameters + estimate.gradients + estimate.optimizer
        assert estimate.total >= states + estimate.activations + estimate.communication
        return tuple(part / weights.all for part in (estimate.parameters, estimate.gradients, estimate.optimizer))

    config = config_of(vocabulary_size=104)
    weights = cost_of(config, 128).weights
    assert weights.all % 4 == 0
    assert [memory(stage, "bf16") for stage in range(4)] == [(2, 2, 12), (2, 2, 3), (2, 0.5, 3), (0.5, 0.5, 3)]
    assert [memory(stage, "fp32") for stage in (0, 2)] == [(4, 4, 8), (4, 1, 3)]


def test_peak_is_the_speed_of_a_real_product_and_is_measured_once() -> None:
    device = torch.device("cpu")
    peak = measured_peak_flops(device, torch.float32)
    assert 1e8 < peak < 1e14
    assert measured_peak_flops(device, torch.float32) == peak
