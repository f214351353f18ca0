"""Learning rate, checkpoints and evaluations as pure functions of steps or time: nothing of them needs saving."""

import math
from dataclasses import dataclass
from typing import Literal

Decay = Literal["constant", "linear", "cosine", "cubic", "wsd"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate, checkpoints and evaluations over the steps of a phase."""

    learning_rate: float
    warmup_steps: int
    decay: Decay
    decay_part: float
    checkpoint_every_steps: int | None
    """None = not by steps."""
    checkpoint_every_seconds: float | None = None
    """None = not by time."""
    evaluate_every_steps: int | None = None
    """None = not within the phase."""

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """Returns the learning rate of a 0-based step."""
        return learning_rate_at(
            step,
            peak=self.learning_rate,
            warmup_steps=self.warmup_steps,
            total_steps=total_steps,
            decay=self.decay,
            decay_part=self.decay_part,
        )

    def checkpoint_is_due(self, steps_done: int, total_steps: int) -> bool:
        """Returns whether a checkpoint follows this step: at the interval, before evaluations and at the end."""
        at_interval = self.checkpoint_every_steps is not None and steps_done % self.checkpoint_every_steps == 0
        return at_interval or steps_done == total_steps or self.evaluation_is_due(steps_done, total_steps)

    def checkpoint_is_overdue(self, seconds: float) -> bool:
        """Returns whether a checkpoint is wanted so many seconds after the one before."""
        return self.checkpoint_every_seconds is not None and seconds >= self.checkpoint_every_seconds

    def evaluation_is_due(self, steps_done: int, total_steps: int) -> bool:
        """Returns whether held-out data is evaluated after this step: at the interval, if any, and at the end."""
        every = self.evaluate_every_steps
        return every is not None and (steps_done == total_steps or steps_done % every == 0)


def learning_rate_at(
    step: int,
    *,
    peak: float,
    warmup_steps: int,
    total_steps: int,
    decay: Decay = "constant",
    decay_part: float = 0.2,
) -> float:
    """Returns the learning rate of a step: a linear rise to `peak`, then the chosen decay towards zero.

    The rise reaches `peak` at step `warmup_steps - 1`; a decay starts right after it, that of "wsd" later, and would be
    zero at step `total_steps`, one past the last.

    Args:
        step: 0-based step within the phase.
        peak: the highest learning rate.
        warmup_steps: length of the rise; 0 starts at `peak`.
        total_steps: steps of the phase.
        decay: "constant" stays at `peak`; "linear", "cosine" and "cubic", the cube of the linear one, fall to zero;
            "wsd" (warm-up, stable, decay) stays at `peak` and falls linearly over the last `decay_part` of all steps.
        decay_part: above 0 and at most 1.

    Raises:
        ValueError: `step` is outside the phase or `decay` is unknown.
    """
    if not 0 <= step < total_steps:
        raise ValueError(f"step {step} is outside the phase's {total_steps} steps")
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    fraction_done = (step - warmup_steps) / (total_steps - warmup_steps)
    match decay:
        case "constant":
            return peak
        case "linear":
            return peak * (1.0 - fraction_done)
        case "cosine":
            return peak * 0.5 * (1.0 + math.cos(math.pi * fraction_done))
        case "cubic":
            return peak * (1.0 - fraction_done) ** 3
        case "wsd":
            falling = min(max(1, round(decay_part * total_steps)), total_steps - warmup_steps)
            return peak * min(1.0, (total_steps - step) / falling)
    raise ValueError(f"decay must be constant, linear, cosine, cubic or wsd, not {decay!r}")
