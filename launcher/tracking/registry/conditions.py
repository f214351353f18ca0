"""Conditions on stored metrics, such as `rouge2 >= 0.19`, which a model must meet before it is promoted."""

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass

from longformer.errors import LongformerError

_COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_FORM = re.compile(r"\s*([A-Za-z_][\w./-]*)\s*(>=|<=|>|<)\s*(\S+)\s*")
SPLITS = ("test", "validation")
"""Where a metric written without its split is looked for, in this order."""


@dataclass(frozen=True)
class Condition:
    """A metric, a comparison and a limit; the comparison also says which of two values is the better one."""

    metric: str
    comparison: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Reads `NAME >= NUMBER`, or with <=, > or <.

        Raises:
            LongformerError: it is written otherwise.
        """
        match = _FORM.fullmatch(text)
        try:
            limit = float(match[3]) if match else math.nan
        except ValueError:
            limit = math.nan
        if match is None or not math.isfinite(limit):
            raise LongformerError(
                f'cannot read the condition {text!r}: write a metric, one of >= <= > < and a number: "rouge2 >= 0.19"'
            )
        return cls(match[1], match[2], limit)

    def holds(self, value: float) -> bool:
        """Returns whether a value meets the condition."""
        return bool(_COMPARISONS[self.comparison](value, self.limit))

    def is_no_worse(self, value: float, other: float) -> bool:
        """Returns whether a value is at least as good as another."""
        return value >= other if self.comparison.startswith(">") else value <= other

    def value_in(self, metrics: Mapping[str, float], whose: str) -> float:
        """Returns the metric's value among those stored: under its very name, else of the test or validation split.

        Raises:
            LongformerError: it is not stored.
        """
        for name in (self.metric, *(f"{split}/{self.metric}" for split in SPLITS)):
            if name in metrics:
                return metrics[name]
        stored = ", ".join(sorted(metrics)) or "none"
        raise LongformerError(
            f"{whose} has no metric {self.metric} (stored: {stored}); name one of those, or register the model again "
            f"with --metric {self.metric}=VALUE"
        )
