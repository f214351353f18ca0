"""The runs of a sweep side by side: mean and standard deviation over seeds of what held-out data was scored by."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from rich.table import Table

from launcher.reporting.terminal import terminal_table
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.runs.sweep import overrides_of, run_of
from longformer.errors import LongformerError

SPLITS = ("validation", "test")


@dataclass(frozen=True)
class ScoreOverSeeds:
    """One score of all finished runs that differ in their seed only."""

    mean: float
    std: float | None
    """Sample standard deviation; None of a single run."""
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> "ScoreOverSeeds":
        """Returns mean and standard deviation of one value or more."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, tuple(values))

    def __str__(self) -> str:
        return f"{self.mean:.4f}" if self.std is None else f"{self.mean:.4f} ± {self.std:.4f}"


@dataclass(frozen=True)
class RunsOverSeeds:
    """The runs of a sweep that differ in their seed only."""

    values: str
    """In what they differ from the others."""
    runs: int
    finished: int
    scores: Mapping[str, Mapping[str, ScoreOverSeeds]]
    """By split and name, of the finished runs' last phase."""


def summarize_sweep(sweep: RunPaths) -> list[RunsOverSeeds]:
    """Returns the runs of a sweep, those together that differ in their seed only.

    Raises:
        LongformerError: this is not the directory of a sweep.
    """
    overrides = overrides_of(sweep)
    if not overrides:
        raise LongformerError(f"{sweep.root} is no sweep; `longformer train RUN.yaml --sweep seed=1,2,3` makes one")
    groups: dict[str, list[RunPaths]] = {}
    for index, values in enumerate(overrides):
        others = " ".join(value for value in values if not value.startswith("seed="))
        groups.setdefault(others, []).append(run_of(sweep, index))
    return [_over_seeds(values, runs) for values, runs in groups.items()]


def sweep_table(groups: Sequence[RunsOverSeeds]) -> Table:
    """Returns the table of a sweep for a terminal: test scores, mean ± standard deviation."""
    names = list(dict.fromkeys(name for group in groups for name in group.scores["test"]))
    rows = [
        [
            group.values or "all",
            f"{group.finished} of {group.runs}",
            *(str(group.scores["test"].get(name, "")) for name in names),
        ]
        for group in groups
    ]
    return terminal_table(("values", "runs", *names), rows, title="test split, mean ± standard deviation")


def _over_seeds(values: str, runs: Sequence[RunPaths]) -> RunsOverSeeds:
    opened = [Run.open(paths.root) for paths in runs if paths.exists]
    finished = [run for run in opened if len(run.finished_results()) == len(run.config.phases)]
    last = [run.evaluations()[-1] for run in finished]
    names = list(dict.fromkeys(name for run in finished for name in _score_names(run)))
    scores = {
        split: {
            name: ScoreOverSeeds.of([evaluation[split][name] for evaluation in last])
            for name in names
            if all(name in evaluation[split] for evaluation in last)
        }
        for split in SPLITS
    }
    return RunsOverSeeds(values, len(runs), len(finished), scores)


def _score_names(run: Run) -> Iterator[str]:
    yield from run.config.words.scores
    yield from run.config.words.metrics or ()
