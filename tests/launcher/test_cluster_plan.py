"""The plan for a cluster: sums that a person can check, warnings of what does not fit, and remedies that are true."""

import json
import re
from pathlib import Path

import pytest
from example_run import QUICKSTART, SHIPPED

from launcher.cli import main
from launcher.config.load import load
from launcher.config.run_config import RunConfig
from launcher.planning.fit import USABLE, changed, fits, phase_memory, settled, this_machine
from launcher.planning.gpu_plan import RECOMPUTATION, checkpoint_bytes, forecast
from launcher.planning.gpus import GPUS, Gpu, gpu_of
from launcher.tasks.registry import task_of
from longformer.errors import LongformerError
from longformer.training.objectives import Lengths

LARGE = SHIPPED / "enwik8_large.yaml"
SOURCE = f"data.source={Path(__file__)}"


def large(*overrides: str) -> RunConfig:
    return load(LARGE, [SOURCE, *overrides])


def test_time_is_operations_over_assumed_speed() -> None:
    config = large()
    plan = forecast(config, GPUS["h100"], gpus=8, mfu=0.25)
    for index, (phase, planned) in enumerate(zip(config.phases, plan.phases, strict=True)):
        flops = task_of(config).cost(index).flops(Lengths(phase.sequence_length))
        work = phase.total_steps * phase.batch_size * flops * RECOMPUTATION
        assert planned.seconds == pytest.approx(work / (8 * 0.25 * 989e12))
        assert planned.checkpoint_seconds == pytest.approx(planned.seconds / phase.total_steps * 1000)
        assert planned.checkpoints == -(-phase.total_steps // 1000)
    assert plan.seconds == pytest.approx(sum(phase.seconds for phase in plan.phases))
    halved = forecast(config, GPUS["h100"], gpus=16, mfu=0.25)
    assert halved.seconds == pytest.approx(plan.seconds / 2)


def test_checkpointing_off_saves_the_second_forward_pass() -> None:
    with_it, without = (
        forecast(large(f"training.activation_checkpointing={on}"), GPUS["h100"], gpus=8, mfu=0.3).seconds
        for on in ("true", "false")
    )
    assert with_it == pytest.approx(RECOMPUTATION * without)


def test_higher_stages_need_less_for_states() -> None:
    memory = forecast(large(), GPUS["h100"], gpus=8, mfu=0.3).phases[0].memory
    states = [each.parameters + each.gradients + each.optimizer for each in memory]
    assert states == sorted(states, reverse=True)
    assert len({each.activations for each in memory}) == 1


def test_an_optimizer_in_main_memory_is_counted_there_and_not_on_the_gpu() -> None:
    plan = forecast(large("training.offload_optimizer=true"), GPUS["h100"], gpus=8, mfu=0.3)
    alone, *sharded = plan.phases[0].memory
    assert alone.optimizer > 0
    for memory in sharded:
        assert (memory.gradients, memory.optimizer, memory.update) == (0, 0, 0)
        # AdamW's averages and weights, gradients, and two numbers while it updates, all in fp32.
        assert memory.offloaded == pytest.approx(24 * alone.parameters / 2 / 8)
        assert memory.total == memory.parameters + memory.communication + memory.activations


def test_a_checkpoint_holds_weights_averages_and_masters() -> None:
    assert [checkpoint_bytes(10, "bf16", stage) for stage in (0, 2)] == [140, 140]
    assert [checkpoint_bytes(10, "fp32", stage) for stage in (0, 1, 3)] == [120, 160, 120]


def test_only_checkpoints_that_will_be_written_are_warned_of() -> None:
    """A phase of 114 steps writes one, at its end, however short its steps are."""
    short = ("phases.0.steps=114", "phases.0.warmup_steps=0")
    once = forecast(large(*short), GPUS["h100"], gpus=8, mfu=0.3)
    assert (once.phases[0].checkpoints, once.phases[0].checkpoint_seconds < 60) == (1, True)
    assert not any("phases[0] (2k) writes a checkpoint" in warning for warning in once.warnings)
    often = forecast(large(*short, "training.checkpoint_every_steps=100"), GPUS["h100"], gpus=8, mfu=0.3)
    assert often.phases[0].checkpoints == 2
    assert any("phases[0] (2k) writes a checkpoint every" in warning for warning in often.warnings)


def test_what_does_not_fit_is_warned_of_with_a_setting_that_does() -> None:
    overrides = ("training.activation_checkpointing=false", "phases.4.batch_size=64")
    plan = forecast(large(*overrides), GPUS["a100-40"], gpus=4, mfu=0.3)
    (warning,) = [each for each in plan.warnings if each.startswith("phases[4] (23k) needs about")]
    remedy = re.search(r"it fits with (.*)$", warning)
    assert remedy, warning
    mended = forecast(large(*overrides, *remedy[1].split()), GPUS["a100-40"], gpus=4, mfu=0.3)
    assert fits(mended.phases[4].memory[2], GPUS["a100-40"])
    assert not fits(plan.phases[4].memory[2], GPUS["a100-40"])


def test_an_optimizer_in_main_memory_is_the_last_resort() -> None:
    gpu = Gpu("small", 10**9, GPUS["h100"].peak_flops)
    (warning, *_) = [each for each in forecast(large(), gpu, gpus=1, mfu=0.3).warnings if "needs about" in each]
    remedy = re.search(r"it fits with (.*)$", warning)
    assert remedy, warning
    assert "training.offload_optimizer=true" in remedy[1]
    mended = forecast(large(*remedy[1].split()), gpu, gpus=1, mfu=0.3)
    assert fits(mended.phases[0].memory[2], gpu)


def test_frozen_layers_have_no_gradients_no_optimizer_and_no_activations() -> None:
    # With transformer_xl all layers share two biases, which stay trained.
    settings = ("model.position=rotary", "training.activation_checkpointing=false")
    whole, frozen = (
        forecast(large(*settings, f"training.freeze_layers={layers}"), GPUS["h200"], gpus=1, mfu=0.3)
        .phases[0]
        .memory[0]
        for layers in (0, 15)
    )
    assert frozen.parameters == whole.parameters
    for part in ("gradients", "optimizer", "activations"):
        assert 0.4 < getattr(frozen, part) / getattr(whole, part) < 0.6


def test_what_never_fits_is_said_to() -> None:
    config = large("model.layers=null", "phases.4.sequence_length=90000000")
    (warning,) = [each for each in forecast(config, GPUS["h100"], gpus=1, mfu=0.3).warnings if "needs about" in each]
    assert "no setting makes it fit" in warning


def test_checkpoints_too_rare_or_too_often_are_warned_of() -> None:
    often = forecast(large("training.checkpoint_every_steps=10"), GPUS["h100"], gpus=8, mfu=0.3)
    assert any("phases[0] (2k) writes a checkpoint every 0:00" in warning for warning in often.warnings)
    plan = forecast(large("training.checkpoint_every_steps=300000"), GPUS["a100"], gpus=1, mfu=0.3)
    assert any("between checkpoints, which a failure can cost" in warning for warning in plan.warnings)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("h1000", "--gpu h1000 is not known; known are v100"), ("v100", "does not compute in bf16")],
)
def test_unknown_gpus_and_precisions_are_refused(name: str, sentence: str) -> None:
    with pytest.raises(LongformerError, match=re.escape(sentence)):
        gpu_of(name, "bf16")


def test_command_prints_memory_time_and_assumptions(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", str(LARGE), SOURCE, "--gpu", "h100", "--gpus", "4", "--nodes", "2"]
    assert main(arguments) == 0
    text = " ".join(capsys.readouterr().out.split())
    for expected in ("8 x H100 SXM 80 GB", "2, chosen", "23k", "989T FLOP/s", "reaches 30%", "4 GPUs on each of 2"):
        assert expected in text
    assert main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["gpus"] == 8
    assert len(plan["phases"][0]["memory"]) == 4


def test_a_batch_that_the_gpus_cannot_share_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(QUICKSTART), "training.precision=bf16", "--gpu", "h100", "--gpus", "5"]) == 2
    assert "cannot be divided over 5 ranks" in capsys.readouterr().err


def test_auto_takes_the_largest_micro_batch_that_fits_and_recomputes_only_when_one_sequence_does_not() -> None:
    auto = [f"phases.{index}.micro_batch_size=auto" for index in range(5)] + ["training.activation_checkpointing=auto"]
    config = large(*auto)
    for gpu in (GPUS["h200"], GPUS["a100-40"], Gpu("small", 4 * 10**9, GPUS["h200"].peak_flops)):
        for index, phase in enumerate(forecast(config, gpu, gpus=4, mfu=0.3).phases):

            def needs(micro: int, recomputed: bool, index: int = index) -> int:
                fixed = large(
                    f"phases.{index}.micro_batch_size={micro}", f"training.activation_checkpointing={recomputed}"
                )
                cost = task_of(fixed).cost(index)
                return phase_memory(cost, fixed, index, ranks=4, on_gpu=True).total

            room = USABLE * gpu.memory
            chosen = phase.micro_batch_size, phase.activation_checkpointing
            sizes = [size for size in range(1, 9) if config.phases[index].batch_size // 4 % size == 0]
            fitting = [size for size in sizes if needs(size, chosen[1]) <= room]
            assert chosen[0] == max(fitting, default=1)
            assert chosen[1] == (needs(1, False) > room)


def test_auto_is_a_size_and_a_truth_value_where_it_is_settled(config: RunConfig) -> None:
    open_ends = changed(config, training={"activation_checkpointing": "auto"}, phase=(0, {"micro_batch_size": "auto"}))
    by_hand = changed(config, training={"activation_checkpointing": False}, phase=(0, {"micro_batch_size": 8}))
    cost = task_of(config).cost(0)
    assert settled(cost, open_ends, 0, this_machine(2), ranks=2, on_gpu=False) == by_hand
