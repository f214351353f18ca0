"""The run file: everything a training run needs to know, checked before anything is spent.

A config is immutable and consistent; `launcher.config.load` reads one from a YAML file. Two runs with equal
`fingerprint()` train the same model in the same way. What only one task knows stands in `launcher/tasks`.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, model_validator
from pydantic.fields import FieldInfo

from launcher.config.sections import (
    MAY_CHANGE,
    BestSection,
    ClusterSection,
    Count,
    DataSection,
    Name,
    PhaseSection,
    Section,
    TrackingSection,
    TrainingSection,
)
from launcher.config.yaml_file import Location
from longformer.training.checkpoints.copies import CheckpointCopies

Mode = Literal["max", "min"]


@dataclass(frozen=True)
class TaskWords:
    """How a task calls its numbers."""

    bits: str
    """Metric of the training loss in bits, such as bits_per_character."""
    bits_short: str
    """The same for a line of text, such as BPC."""
    scores: tuple[str, ...]
    """Keys of a split in evaluation.json by which held-out text is evaluated, the most important first."""
    score_short: str
    """The first of them for a line of text."""
    metrics: Mapping[str, Mode] | None = None
    """Every number of an evaluation that can tell the best step of a phase, and which of two values is the better one;
    None where the task leaves that to the run file."""


class RunConfig(Section):
    """What the run files of all tasks share: a name, how weights are learned, and in which phases."""

    name: Name
    """Name of the run; its directory is `runs/<name>` unless another is given."""
    task: str
    """What is learned."""
    seed: Count = 0
    """Seed of the initial weights, the order of the samples and the dropout."""
    init: str | None = None
    """Model that the first phase starts from: a folder, a run directory, or one in MLflow's registry
    (`models:/NAME@ALIAS`, `models:/NAME/VERSION`); `null` = the start of the task."""
    training: TrainingSection = TrainingSection()
    """Optimizer, precision, sharding and checkpoints."""
    data: DataSection
    """What is learned from."""
    phases: tuple[PhaseSection, ...]
    """The phases, in order."""
    tracking: TrackingSection = TrackingSection()
    """Where MLflow keeps the run."""
    cluster: Annotated[ClusterSection, MAY_CHANGE] = ClusterSection()
    """How the run lives on a Ray cluster."""

    @property
    def words(self) -> TaskWords:
        """How the task calls its numbers."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _check_phases(self) -> Self:
        names = [phase.name for phase in self.phases]
        if not names:
            raise ValueError("phases is empty: a run needs at least one phase")
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"phases[{index}].name is {name!r}, which an earlier phase has already")
        for index, phase in enumerate(self.phases):
            self._check_best(phase, f"phases[{index}].best")
        return self

    def _check_best(self, phase: PhaseSection, path: str) -> None:
        if phase.best is None:
            return
        known = self.words.metrics
        if known is not None and phase.best.metric not in known:
            raise ValueError(f"{path}.{unknown_metric(phase.best.metric, known)}")
        if known is None and phase.best.mode is None:
            raise ValueError(f"{path}.mode is missing: say whether the max or the min of {phase.best.metric} is best")

    def higher_is_better(self, best: BestSection) -> bool:
        """Returns whether the higher of two values of the metric is the better one."""
        return (best.mode or (self.words.metrics or {})[best.metric]) == "max"

    def leaves_open(self, phase_index: int) -> bool:
        """Returns whether something that a phase reads is `auto`, and so to be settled where it is done."""
        return "auto" in (self.phases[phase_index].micro_batch_size, self.training.activation_checkpointing)

    def check_ranks(self, ranks: int) -> None:
        """Raises LongformerError when the batch of some phase cannot be divided over `ranks` ranks."""
        for phase in self.phases:
            phase.batching(ranks)

    def checkpoint_copies(self, phase_index: int) -> CheckpointCopies | None:
        """Returns where the checkpoints of a phase are copied to, or None.

        Raises:
            LongformerError: no storage of that kind can be used here.
        """
        url = self.training.checkpoint_copies
        phase = self.phases[phase_index].name
        return None if url is None else CheckpointCopies(f"{url}/{self.name}/{phase_index + 1:02d}-{phase}")

    def to_yaml(self) -> str:
        """Returns the resolved run file: no `extends`, every default written out; loading it gives an equal config."""
        return yaml.safe_dump(self._content(), sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)

    def fingerprint(self) -> str:
        """Returns the SHA-256 (hex) of everything in the config, however it was written."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    def values(self) -> dict[str, Any]:
        """Returns every value by its path as in an override: `phases.0.steps`; a list such as windows is one value."""
        return {".".join(map(str, location)): value for location, value in _flat(self._content())}

    def diff(self, other: Self) -> list[str]:
        """Returns one line per value that differs, `phases.0.steps: 100 -> 200`, from this config to `other`."""
        return _differences(self.values(), other.values())

    def learning_diff(self, other: Self) -> list[str]:
        """Returns the lines of `diff` without those of fields that are marked as MAY_CHANGE."""
        return _differences(self._learning_values(), other._learning_values())

    def _learning_values(self) -> dict[str, Any]:
        changeable = tuple(f"{key}." for key in _changeable(self))
        return {key: value for key, value in self.values().items() if not f"{key}.".startswith(changeable)}

    def _content(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


def unknown_metric(metric: str, known: Iterable[str]) -> str:
    """Returns the sentence about a metric that an evaluation does not have, with the nearest that it has."""
    names = list(known)
    nearest = difflib.get_close_matches(metric, names, n=1, cutoff=0.5)
    suggestion = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(names)}"
    return f"metric is {metric!r}, which no evaluation of this task has ({suggestion})"


def may_change(field: FieldInfo) -> bool:
    """Returns whether a run may be resumed with another value of a field."""
    return isinstance(field.json_schema_extra, dict) and "may_change" in field.json_schema_extra


def _changeable(section: BaseModel, prefix: str = "") -> Iterator[str]:
    """Yields the dotted key of every field of a section, and of sections inside it, that may change."""
    for name, field in type(section).model_fields.items():
        if may_change(field):
            yield prefix + name
            continue
        value = getattr(section, name)
        inner = (
            {f"{name}.{index}": item for index, item in enumerate(value)} if isinstance(value, tuple) else {name: value}
        )
        for key, item in inner.items():
            if isinstance(item, BaseModel):
                yield from _changeable(item, f"{prefix}{key}.")


def _differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    return [
        f"{key}: {json.dumps(first.get(key, 'absent'))} -> {json.dumps(second.get(key, 'absent'))}"
        for key in first | second
        if key not in first or key not in second or first[key] != second[key]
    ]


def _flat(value: Any, location: Location = ()) -> Iterator[tuple[Location, Any]]:
    """Yields (location, value) for every leaf; a list of plain values (such as windows) is one leaf."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, (*location, key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, (*location, index))
    else:
        yield location, value
