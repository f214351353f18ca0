"""Labels as files have them, read into one form: classes are texts, several classes a list of them, numbers numbers."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from data_pipeline.errors import DataError

Problem = Literal["single_label", "multi_label", "regression"]
"""What a label is: one class, any number of classes, or a number."""
_MANY_CLASSES = 50
"""Where there are so many, and more than every second is a class of its own, they are identifiers or texts."""
_FRACTION = re.compile(r"[+-]?\d*[.,]\d*[1-9]\d*")
_MISSING = ("", "nan", "null", "<na>")
"""As pandas and JSON write that there is none, in small letters."""


class LabelError(ValueError):
    """A label cannot be read; says why in a sentence."""


def read_label(value: Any, problem: Problem) -> str | list[str] | float:
    """Returns the value of a field as a label of the problem.

    Of several labels, a list counts, its JSON form, or a text that parts them by semicolons, as a table has them.

    Raises:
        LabelError: it is none.
    """
    if problem == "multi_label":
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except ValueError:
                raise LabelError(f"the labels are {value!r}, which is no JSON list") from None
        elif isinstance(value, str):
            value = [part.strip() for part in value.split(";") if part.strip()]
        if not isinstance(value, list):
            raise LabelError(f"the labels are {value!r}, but they should be a list")
        return [_class_name(each) for each in value]
    if problem == "regression":
        return _number(value)
    return _class_name(value)


def is_set(value: Any) -> bool:
    """Returns whether a column that stands for a class holds 1 (or true), not 0.

    Raises:
        LabelError: it holds something else.
    """
    known = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
    if (written := str(value).strip().lower()) not in known:
        raise LabelError(f"a column of a class holds {value!r}, but it should hold 0 or 1")
    return known[written]


def sorted_classes(classes: Mapping[str, int]) -> list[str]:
    """Returns the names of classes in their order: by value where all are whole numbers, else by the alphabet."""
    try:
        return sorted(classes, key=int)
    except ValueError:
        return sorted(classes)


def _class_name(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():  # as pandas writes whole numbers beside missing ones
        value = int(value)
    if _is_missing(value):
        raise LabelError("it has no label")
    if isinstance(value, float) or (isinstance(value, str) and _FRACTION.fullmatch(value.strip())):
        raise LabelError(f"the label is {value}, a number with a fraction, but it should be a class")
    if not isinstance(value, str | int):
        raise LabelError(f"the label is of the type {type(value).__name__}, but it should be a text or a whole number")
    return str(value).strip()


def _number(value: Any) -> float:
    if _is_missing(value):
        raise LabelError("it has no label")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise LabelError(f"the label is {value!r}, but it should be a number") from None
    if not math.isfinite(number):
        raise LabelError(f"the label is {number}, but it should be a finite number")
    return number


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in _MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


@dataclass
class ClassCounts:
    """How often every class stands in every split, by the name of the field."""

    counts: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    _training_examples: Counter[str] = field(default_factory=Counter)

    def add(self, split: str, name: str, label: str | list[str]) -> None:
        """Counts the label, or the labels, of an example.

        Raises:
            DataError: they look like identifiers.
        """
        found = self.counts.setdefault(name, {}).setdefault(split, Counter())
        known = len(found)
        found.update(label if isinstance(label, list) else [label])
        self._training_examples[name] += split == "train"
        if len(found) // 1_000 > known // 1_000:  # said before all of a large corpus is read
            _check_no_identifiers(found)

    def check(self) -> None:
        """Checks that there is something to learn, and that nothing else is asked.

        Raises:
            DataError: no training example has a class or all have the same, or another split has one that none of them
                has, or the classes look like identifiers.
        """
        for field_name, splits in self.counts.items():
            learned = splits.get("train", Counter())
            _check_no_identifiers(learned)
            if not learned:
                raise DataError("no training example has a label: name the field that holds the labels")
            only = next(iter(learned))
            # Of several labels one class can be learned, where some examples do not have it.
            if len(learned) == 1 and learned[only] >= self._training_examples[field_name]:
                raise DataError(
                    f"all {learned[only]:,} labels of the training examples are {only!r}: there is nothing to tell "
                    "apart"
                )
            for split, found in splits.items():
                for name in sorted_classes(found):
                    if name not in learned:
                        raise DataError(
                            f"{found[name]:,} of the examples for {split} have the label {name!r}, which no training "
                            "example has: mend the data, or divide it in another way"
                        )

    def as_json(self) -> dict[str, dict[str, dict[str, int]]]:
        """Returns the counts as a manifest keeps them, the classes in their order."""
        return {
            name: {
                split: {each: found[each] for each in sorted_classes(found)} for split, found in sorted(splits.items())
            }
            for name, splits in self.counts.items()
        }


def _check_no_identifiers(found: Counter[str]) -> None:
    if len(found) >= _MANY_CLASSES and 2 * len(found) > found.total():
        raise DataError(
            f"the field of the label has {len(found):,} different values in {found.total():,} examples "
            f"({', '.join(list(found)[:3])}, ...), as identifiers and texts have: name the field that holds the class"
        )
