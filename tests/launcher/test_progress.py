"""Live progress: read from files only, right about what is left, a plain line where there is no terminal."""

import io
import json
import re
from pathlib import Path

import pytest
from example_run import records, write_result, write_steps
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from launcher.config.run_config import RunConfig
from launcher.reporting.progress import ACKNOWLEDGEMENTS, RunProgress, progress_snapshot
from launcher.reporting.text import clock, short
from launcher.runs.paths import MetricsFollower
from launcher.runs.run import Run
from launcher.training.signals import StopFlag


def shown(run: Run, *, terminal: bool, stop: StopFlag | None = None) -> str:
    """Return everything that is drawn for the run as it stands."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=100)
    with RunProgress(run, stop or StopFlag(), console=console):
        pass
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue())


def test_run_in_its_second_phase_is_told_in_one_plain_line(created_run: Run) -> None:
    write_steps(created_run, records(created_run.config)[:40])
    write_result(created_run, 0)
    first, begins, second = shown(created_run, terminal=False).splitlines()
    assert begins == "phase 2/3 medium begins: 20 steps, sequences of 256 tokens"
    assert first == "phase 1/3 short done: 3.000 BPC on held-out text, 30 steps in 0:07"
    assert re.fullmatch(
        r"phase 2/3 medium  step 10/20  loss 2\.\d+  BPC 3\.\d+  4,500 tokens/s  MFU 30%  about 0:27 left", second
    )


def test_terminal_shows_phase_bar_and_measures(created_run: Run) -> None:
    write_steps(created_run, records(created_run.config)[:10])
    text = shown(created_run, terminal=True)
    for expected in ("phase 1/3 short", "sequences of 128 tokens", "step 10 of 30", "BPC", "left"):
        assert expected in text


def test_phase_that_is_trained_but_not_judged_is_being_evaluated(created_run: Run) -> None:
    write_steps(created_run, records(created_run.config)[:30])
    assert "evaluating on held-out text" in shown(created_run, terminal=False)


def test_run_without_a_step_waits_on_a_terminal_and_tells_elsewhere_what_begins(created_run: Run) -> None:
    assert "waiting for the first step" in shown(created_run, terminal=True)
    assert shown(created_run, terminal=False) == "phase 1/3 short begins: 30 steps, sequences of 128 tokens\n"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("requests", [0, 1, 2, 3])
def test_each_request_to_stop_is_acknowledged_once(created_run: Run, requests: int, terminal: bool) -> None:
    stop = StopFlag()
    stop.requests = requests
    said = shown(created_run, terminal=terminal, stop=stop)
    assert [said.count(sentence) for sentence in ACKNOWLEDGEMENTS] == [min(requests, 1), int(requests > 1)]


def test_time_left_counts_the_tokens_of_the_coming_phases(config: RunConfig) -> None:
    steps = [vars(record) for record in records(config)][:15]
    now = progress_snapshot(steps[-5:], config)
    tokens_left = sum(phase.total_steps * phase.positions_per_step for phase in config.phases) - steps[-1]["tokens"]
    assert now.tokens_per_second == pytest.approx(9000)
    assert now.seconds_left == pytest.approx(tokens_left / 9000)
    assert (now.phase_index, now.step) == (0, 15)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0:00"),
        (59.6, "1:00"),
        (754, "12:34"),
        (11_220, "3:07:00"),
        (86_400, "24:00:00"),
        (86_400 * 16 + 3600, "16.0 days"),
    ],
)
def test_clock_is_what_a_person_writes(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999"), (614_400, "614k"), (1_024_000, "1.02M"), (28_180_480_000, "28.2G"), (2e15, "2P")]
)
def test_large_numbers_are_short(count: float, text: str) -> None:
    assert short(count) == text


@given(
    lines=st.lists(st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False), max_size=3), max_size=20),
    pieces=st.lists(st.integers(0, 60), max_size=20),
)
def test_follower_gives_every_record_once_however_the_file_grows(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, float]], pieces: list[int]
) -> None:
    path: Path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    follower = MetricsFollower(path)
    assert follower.new_records() == []
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    seen: list[dict[str, float]] = []
    with path.open("wb", buffering=0) as file:
        for size in [*pieces, len(content)]:
            file.write(content[:size])
            content = content[size:]
            seen += follower.new_records()
    assert seen == lines


def test_follower_starts_over_when_the_file_was_cut_back(created_run: Run) -> None:
    steps = records(created_run.config)
    follower = MetricsFollower(created_run.paths.metrics_file)
    write_steps(created_run, steps[:10])
    assert len(follower.new_records()) == 10
    write_steps(created_run, steps[5:12])
    assert [record["global_step"] for record in follower.new_records()] == list(range(1, 13))
