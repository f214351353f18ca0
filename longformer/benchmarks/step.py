"""A training step, forward and backward, of our models beside Hugging Face's: by turns, one process after another.

float32 on the CPU, batch 1. Times and peak memory belong to the same process, which does nothing else. Turns are taken
because the speed of a machine may drift over the minutes that a slow contender takes: all get their share of it.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec

from longformer.benchmarks.busy import BusyMeasurement, compare_busy
from longformer.benchmarks.memory import be_killed_first, in_own_process, peak_memory
from longformer.benchmarks.step_models import HUGGING_FACE, OURS, contenders, training_loss
from longformer.benchmarks.timing import timed
from longformer.errors import LongformerError

# Of a turn. The first steps set up memory and threads; short ones take several times as long at first.
LEAST_STEPS = 2
LEAST_SECONDS = 5.0


@dataclass(frozen=True)
class StepMeasurement:
    """A contender at a length: seconds of its fastest step, and the peak memory of its whole process.

    `seconds_of_turns` are those of the fastest step of every turn. Where `failure` says why there is no result, the
    numbers are None.
    """

    model: str
    positions: int
    contender: str
    seconds: float | None = None
    tokens_per_second: float | None = None
    peak_bytes: int | None = None
    seconds_of_turns: tuple[float, ...] = ()
    failure: str | None = None


def compare_steps(
    model: str, lengths: Iterable[int], *, repeats: int, report: Callable[[str], None]
) -> list[StepMeasurement]:
    """Measures all contenders at all lengths, ours first; `report` is told what is being done.

    Raises:
        LongformerError: transformers is not installed.
    """
    if find_spec("transformers") is None:
        raise LongformerError("the comparison needs Hugging Face's models: pip install transformers")
    measurements = []
    for positions in lengths:
        turns: dict[str, list[StepMeasurement]] = {contender: [] for contender in contenders(model, positions)}
        for turn in range(1, repeats + 1):
            for contender, taken in turns.items():
                if any(each.failure for each in taken):
                    continue
                report(f"{contender}: turn {turn} of {repeats}, {model} at {positions:,} tokens")
                taken.append(take_turn(model, positions, contender))
        measurements += [summed_up(taken) for taken in turns.values()]
    return measurements


def take_turn(model: str, positions: int, contender: str) -> StepMeasurement:
    """Measures one contender in a process of its own; a peer may well be killed for the memory it wants."""
    what = f"{contender} at {positions} tokens"
    try:
        steps, peak = in_own_process(__name__, model, contender, str(positions), what=what)
    except LongformerError as failure:
        return StepMeasurement(model, positions, contender, failure=str(failure))
    seconds = min(steps)
    return StepMeasurement(model, positions, contender, seconds, positions / seconds, peak, (seconds,))


def summed_up(turns: list[StepMeasurement]) -> StepMeasurement:
    """Returns the fastest of a contender's turns with the highest peak of any, or the turn that failed."""
    if turns[-1].failure is not None:
        return turns[-1]
    seconds_of_turns = tuple(seconds for turn in turns for seconds in turn.seconds_of_turns)
    fastest = turns[seconds_of_turns.index(min(seconds_of_turns))]
    peak = max(turn.peak_bytes or 0 for turn in turns)
    return replace(fastest, peak_bytes=peak, seconds_of_turns=seconds_of_turns)


def compare_busy_steps(
    model: str, positions: int, *, busy: int, repeats: int, report: Callable[[str], None]
) -> list[BusyMeasurement]:
    """Measures our step and Hugging Face's alone and beside busy processes; see `compare_busy`."""

    def measure(contender: str, environment: Mapping[str, str]) -> list[float]:
        what = f"{contender} at {positions} tokens"
        steps, _ = in_own_process(__name__, model, contender, str(positions), what=what, environment=environment)
        return list(steps)

    return compare_busy(measure, (OURS, HUGGING_FACE), positions=positions, busy=busy, repeats=repeats, report=report)


def main(model: str, contender: str, positions: int) -> None:
    """Prints the seconds of every step of a turn in this process, and its peak memory."""
    be_killed_first()
    module, loss = training_loss(model, contender, positions)

    def step() -> None:
        module.zero_grad(set_to_none=True)
        loss().backward()

    taken: list[float] = []
    while len(taken) < LEAST_STEPS or sum(taken) < LEAST_SECONDS:
        taken.append(timed(step, "cpu")[0])
    print(json.dumps((taken, peak_memory())))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
