"""The plan: sums that a person can check, and memory that shrinks with ranks."""

import json
from pathlib import Path

import pytest
from example_run import QUICKSTART, SHIPPED, SMALL

from data_pipeline.shards.prepared import PreparedData
from launcher.cli import main
from launcher.config.load import load
from launcher.config.run_config import RunConfig
from launcher.planning.fit import this_machine
from launcher.planning.plan import plan_run
from launcher.tasks.registry import task_of
from longformer.errors import LongformerError
from longformer.models.char_lm.model import CharacterLM
from longformer.training.objectives import Lengths


def test_phases_add_up_to_the_run(prepared: PreparedData) -> None:
    config = load(QUICKSTART, [*SMALL, f"data.directory={prepared.location}"])
    plan = plan_run(config, this_machine(1), ranks=2, on_gpu=False, peak_flops=1e11)
    assert [phase.tokens for phase in plan.phases] == [30 * 16 * 128, 20 * 16 * 256, 10 * 16 * 512]
    assert [phase.micro_batch_size * phase.accumulation_steps * 2 for phase in plan.phases] == [16, 16, 16]
    for index, phase in enumerate(plan.phases):
        flops = task_of(config).cost(index).flops(Lengths(phase.sequence_length))
        assert phase.flops == pytest.approx(phase.steps * 16 * flops)
        assert phase.epochs == phase.steps * 16 / ((prepared.tokens("train") - 1) // phase.sequence_length)
    assert plan.seconds_at_peak == pytest.approx(sum(phase.flops for phase in plan.phases) / 1e11)
    assert plan.shards_per_rank == plan.shards / 2


def test_unprepared_data_is_planned_for_with_what_is_known(tmp_path: Path) -> None:
    config = load(QUICKSTART, [*SMALL, f"data.directory={tmp_path / 'nothing'}"])
    plan = plan_run(config, this_machine(1), ranks=1, on_gpu=False, peak_flops=1e11)
    assert plan.shards is None
    assert plan.phases[0].epochs is None
    assert plan.parameters == sum(each.numel() for each in CharacterLM(config.character_model(0, 256)).parameters())


def test_sharding_over_more_ranks_needs_less_memory_per_rank(config: RunConfig) -> None:
    totals = [
        plan_run(config, this_machine(1), ranks=ranks, on_gpu=False, peak_flops=1).phases[0].memory.total
        for ranks in (1, 2, 4)
    ]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] > totals[2]


def test_batch_that_ranks_cannot_share_is_refused(config: RunConfig) -> None:
    with pytest.raises(LongformerError, match="cannot be divided over 5 ranks"):
        plan_run(config, this_machine(1), ranks=5, on_gpu=False, peak_flops=1)


def test_command_prints_the_plan_for_people_and_programs(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = f"data.directory={tmp_path_factory.getbasetemp() / 'absent'}"
    assert main(["plan", str(QUICKSTART), absent, "--ranks", "2"]) == 0
    text = capsys.readouterr().out
    for expected in ("quickstart", "medium", "1.02M", "At least", "will be prepared when training starts"):
        assert expected in text
    assert main(["plan", str(QUICKSTART), absent, "--ranks", "2", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [phase["steps"] for phase in plan["phases"]] == [phase.total_steps for phase in load(QUICKSTART).phases]
    planned = plan_run(load(QUICKSTART, [absent]), this_machine(1), ranks=2, on_gpu=False, peak_flops=1)
    assert [phase["memory"]["total"] for phase in plan["phases"]] == [phase.memory.total for phase in planned.phases]


def test_the_names_of_phases_are_whole_in_a_terminal_of_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"length-16384-of-the-{name}" for name in ("first", "second", "third")]
    renamed = [f"phases.{index}.name={name}" for index, name in enumerate(names)]
    for machine in ([], ["--gpu", "h100", "--gpus", "2"]):
        assert main(["plan", str(QUICKSTART), *renamed, *machine]) == 0
        rows = capsys.readouterr().out.splitlines()
        for name in names:
            assert any(row.strip().startswith(f"{name} ") for row in rows)


def test_measured_steps_stand_beside_the_plan_and_leave_nothing(
    prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_file = tmp_path / "run.yaml"
    text = QUICKSTART.read_text().replace("recipe: python_library", f"recipe: text\n  source: {SHIPPED}")
    run_file.write_text(text)
    arguments = [str(run_file), *SMALL, f"data.directory={prepared.location}", "phases.1.micro_batch_size=2"]
    assert main(["plan", *arguments, "--measure", "--ranks", "2", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert len(plan["measured"]) == len(plan["phases"]) == 3
    for phase, measured in zip(plan["phases"], plan["measured"], strict=True):
        assert measured["micro_batch_size"] * measured["accumulation_steps"] * 2 == 16
        assert measured["seconds_per_step"] > 0
        # What libraries hold comes on top of what the model needs, which is small here.
        assert measured["memory"] > phase["memory"]["parameters"] + phase["memory"]["optimizer"]
    assert list(tmp_path.iterdir()) == [run_file]


def test_steps_are_measured_here_and_nowhere_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(QUICKSTART), "--measure", "--gpu", "h100"]) == 2
    assert "--measure takes steps on this machine" in capsys.readouterr().err
