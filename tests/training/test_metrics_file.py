"""metrics.jsonl holds every step that counts once, in order, whatever was interrupted."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from longformer.training.metrics_file import MetricsFile, cut_back
from longformer.training.records import PhaseInfo, Progress, StepRecord

PHASE = PhaseInfo(name="short", index=0, steps=100, sequence_length=8, batch_size=2, ranks=1)
RECORD = StepRecord(
    phase="short",
    phase_index=0,
    step=1,
    global_step=1,
    tokens=16,
    loss=1.0,
    learning_rate=0.1,
    gradient_norm=1.0,
    tokens_per_second=10.0,
    mfu=0.1,
    seconds=1.6,
    saving_seconds=0.0,
    skipped_steps=0,
)


@given(lives=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), min_size=1, max_size=6))
def test_after_any_number_of_lives_every_step_stands_there_once(
    lives: list[tuple[int, int, bool]],
) -> None:
    """A life goes back some steps, does some more, and may end within a line."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "metrics.jsonl")
        reached = 0
        for back, forward, torn in lives:
            start = max(0, reached - back)
            file = MetricsFile(path)
            file.on_phase_start(PHASE, Progress(global_step=start, step=start))
            reached = start
            for _ in range(forward):
                reached += 1
                file.on_step_end(replace(RECORD, step=reached, global_step=reached))
            file.on_phase_end(PHASE, {})
            if torn:
                with path.open("a") as stream:
                    stream.write('{"phase": "sh')
        cut_back(path, reached)
        steps = [json.loads(line)["global_step"] for line in path.read_text().splitlines()]
        assert steps == list(range(1, reached + 1))
