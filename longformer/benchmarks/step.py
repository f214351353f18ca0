"""A training step, forward and backward, of our models beside Hugging Face's: one process after another.

float32 on the CPU, batch 1. Times and peak memory belong to the same process, which does nothing else.
"""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from longformer.benchmarks.memory import be_killed_first, in_own_process, peak_memory
from longformer.benchmarks.step_models import contenders, training_loss
from longformer.benchmarks.timing import timed
from longformer.errors import LongformerError

LEAST_SECONDS = 5.0


@dataclass(frozen=True)
class StepMeasurement:
    """A contender at a length: seconds of its fastest step, and the peak memory of its whole process.

    Where `failure` says why there is no result, the numbers are None.
    """

    model: str
    positions: int
    contender: str
    seconds: float | None = None
    tokens_per_second: float | None = None
    peak_bytes: int | None = None
    failure: str | None = None


def compare_steps(
    model: str, lengths: Iterable[int], *, repeats: int, report: Callable[[str], None]
) -> list[StepMeasurement]:
    """Measure all contenders at all lengths, ours first; `report` is told what is being done.

    Raises:
        LongformerError: transformers is not installed.
    """
    if find_spec("transformers") is None:
        raise LongformerError("the comparison needs Hugging Face's models: pip install transformers")
    measurements = []
    for positions in lengths:
        for contender in contenders(model, positions):
            report(f"{contender}: {repeats} steps of {model} at {positions:,} tokens")
            measurements.append(measure(model, positions, contender, repeats))
    return measurements


def measure(model: str, positions: int, contender: str, repeats: int) -> StepMeasurement:
    """Measure one contender in a process of its own; a peer may well be killed for the memory it wants."""
    what = f"{contender} at {positions} tokens"
    try:
        seconds, peak = in_own_process(__name__, model, contender, str(positions), str(repeats), what=what)
    except LongformerError as failure:
        return StepMeasurement(model, positions, contender, failure=str(failure))
    return StepMeasurement(model, positions, contender, seconds, positions / seconds, peak)


def main(model: str, contender: str, positions: int, repeats: int) -> None:
    """Print the seconds of the fastest of at least `repeats` steps in this process, and its peak memory.

    Short steps are repeated for some seconds: the first ones set up memory and threads and take several times as long.
    """
    be_killed_first()
    module, loss = training_loss(model, contender, positions)

    def step() -> None:
        module.zero_grad(set_to_none=True)
        loss().backward()

    taken: list[float] = []
    while len(taken) < repeats or sum(taken) < LEAST_SECONDS:
        taken.append(timed(step, "cpu")[0])
    print(json.dumps((min(taken), peak_memory())))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
