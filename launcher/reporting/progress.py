"""Live progress of a run, drawn by the driver while worker processes train.

Knows the run only through its files: it follows metrics.jsonl and looks for committed results. On a
terminal it draws a live display, elsewhere it prints a plain line now and then.
"""

import json
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import log
from statistics import fmean
from time import monotonic
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from launcher.config.run_config import RunConfig
from launcher.reporting.text import clock
from launcher.runs.paths import MetricsFollower
from launcher.runs.run import Run
from launcher.training.signals import StopFlag

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_PLAIN_LINES = 10.0
STEPS_AVERAGED = 20
ACKNOWLEDGEMENTS = (
    "stopping as soon as a checkpoint is written; another Ctrl-C ends the run at once, without one",
    "ending at once; the steps since the last checkpoint will be done again",
)
"""What is said to the first and to the second request to stop."""


@dataclass(frozen=True)
class ProgressSnapshot:
    """Where a run stands; loss and speed are means of the last steps of the phase."""

    phase_index: int
    step: int
    loss: float
    bits: float
    """The loss in bits."""
    tokens_per_second: float
    mfu: float
    seconds_left: float
    """Of training, to the end of the last phase, should the coming phases need as long per position."""


def progress_snapshot(recent: Sequence[dict[str, Any]], config: RunConfig) -> ProgressSnapshot:
    """Returns where the run stands after the last of `recent`, the newest records of one phase (at least one)."""
    newest = recent[-1]
    phase_index, step = newest["phase_index"], newest["step"]
    phase = config.phases[phase_index]
    seconds = sum(record["seconds"] for record in recent)
    positions_left = (phase.total_steps - step) * phase.positions_per_step
    positions_left += sum(later.total_steps * later.positions_per_step for later in config.phases[phase_index + 1 :])
    return ProgressSnapshot(
        phase_index=phase_index,
        step=step,
        loss=fmean(record["loss"] for record in recent),
        bits=fmean(record["loss"] for record in recent) / log(2),
        tokens_per_second=sum(record["tokens_per_second"] * record["seconds"] for record in recent) / seconds,
        mfu=fmean(record["mfu"] for record in recent),
        seconds_left=seconds / (len(recent) * phase.positions_per_step) * positions_left,
    )


class RunProgress:
    """Shows a run's progress from a thread: `with RunProgress(run, stop): ...`; requests to stop are acknowledged."""

    def __init__(self, run: Run, stop: StopFlag, *, console: Console | None = None) -> None:
        self._run = run
        self._requests, self._acknowledged = stop, 0
        self._config = run.config
        self._console = console or Console()
        self._metrics = MetricsFollower(run.paths.metrics_file)
        self._recent: deque[dict[str, Any]] = deque(maxlen=STEPS_AVERAGED)
        self._announced: set[int] = set()
        self._begun: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        on_terminal = self._console.is_terminal
        live = Live(console=self._console, transient=True, refresh_per_second=4) if on_terminal else None
        next_line, last_line = monotonic(), ""
        with live or nullcontext():
            stopping = False
            while not stopping:
                stopping = self._stop.wait(SECONDS_BETWEEN_LOOKS)
                self._look()
                if live:
                    live.update(self._display())
                elif self._recent and not self._newest_phase_is_done and monotonic() >= next_line:
                    line = self._line()
                    if line != last_line:
                        self._console.print(line, highlight=False, soft_wrap=True)
                    next_line, last_line = monotonic() + SECONDS_BETWEEN_PLAIN_LINES, line

    def _look(self) -> None:
        """Takes in what was written since the last look, and tells what is done, what begins and what was asked."""
        for record in self._metrics.new_records():
            if self._recent and self._recent[-1]["phase_index"] != record["phase_index"]:
                self._recent.clear()
            self._recent.append(record)
        for index in range(len(self._config.phases)):
            result = self._run.result_directory(index) / "evaluation.json"
            if index not in self._announced and result.exists():
                self._announced.add(index)
                evaluation = json.loads(result.read_text(encoding="utf-8"))
                words = self._config.words
                score = evaluation["validation"][words.scores[0]]
                self._console.print(
                    f"{self._phase_title(index)} done: {score:.3f} {words.score_short} on held-out text, "
                    f"{evaluation['steps']:,} steps in {clock(evaluation['seconds'])}",
                    highlight=False,
                    soft_wrap=True,
                )
            if index not in self._announced:
                self._tell_beginning(index)
                break
        for sentence in ACKNOWLEDGEMENTS[self._acknowledged : self._requests.requests]:
            self._console.print(sentence, highlight=False, soft_wrap=True)
            self._acknowledged += 1

    def _tell_beginning(self, index: int) -> None:
        """Says once which phase begins, where no live display shows it."""
        if index in self._begun or self._console.is_terminal:
            return
        self._begun.add(index)
        phase = self._config.phases[index]
        self._console.print(
            f"{self._phase_title(index)} begins: {phase.total_steps:,} steps, sequences of "
            f"{phase.sequence_length:,} tokens",
            highlight=False,
            soft_wrap=True,
        )

    @property
    def _newest_phase_is_done(self) -> bool:
        return self._recent[-1]["phase_index"] in self._announced

    def _phase_title(self, index: int) -> str:
        return f"phase {index + 1}/{len(self._config.phases)} {self._config.phases[index].name}"

    def _line(self) -> str:
        now = progress_snapshot(self._recent, self._config)
        steps = self._config.phases[now.phase_index].total_steps
        return f"{self._phase_title(now.phase_index)}  step {now.step:,}/{steps:,}  {self._state(now)}"

    def _display(self) -> RenderableType:
        if not self._recent:
            return Text("waiting for the first step", style="dim")
        now = progress_snapshot(self._recent, self._config)
        phase = self._config.phases[now.phase_index]
        title = Text.assemble(
            (self._phase_title(now.phase_index), "bold"),
            (f"  sequences of {phase.sequence_length:,} tokens", "dim"),
        )
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=phase.total_steps, completed=now.step, width=40),
            f"step {now.step:,} of {phase.total_steps:,}",
        )
        return Group(title, bar, Text(self._state(now)))

    def _state(self, now: ProgressSnapshot) -> str:
        if self._newest_phase_is_done:
            return "done"
        if now.step == self._config.phases[now.phase_index].total_steps:
            return "evaluating on held-out text"
        return (
            f"loss {now.loss:.3f}  {self._config.words.bits_short} {now.bits:.3f}  "
            f"{now.tokens_per_second:,.0f} tokens/s  MFU {now.mfu:.0%}  about {clock(now.seconds_left)} left"
        )
