"""A run: its directory and its config, read once per process and handed on.

A phase is done when its result directory exists.
"""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launcher.config.load import load
from launcher.config.run_config import RunConfig
from launcher.runs.paths import Identity, RunPaths
from longformer.errors import LongformerError
from longformer.files import write_atomically
from longformer.training.checkpoints.manifest import damage


@dataclass(frozen=True)
class Run:
    """A run directory and the config that the run in it has, or will have."""

    paths: RunPaths
    config: RunConfig

    @classmethod
    def open(cls, directory: Path) -> "Run":
        """Returns the run that was started in a directory.

        Raises:
            LongformerError: this is not a run directory, or its run file is missing or damaged.
        """
        paths = RunPaths(directory)
        paths.identity()
        return cls(paths, load(paths.config_file))

    def create(
        self, *, ranks: int, data_directory: Path, data_fingerprint: str, start_model: str | None = None
    ) -> None:
        """Writes config and identity of a new run; the identity comes last and makes it a run."""
        (self.paths.root / "logs").mkdir(exist_ok=True)
        write_atomically(self.paths.config_file, self.config.to_yaml().encode())
        self.paths.write_identity(
            Identity(
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                ranks=ranks,
                config_fingerprint=self.config.fingerprint(),
                data_directory=str(data_directory.resolve()),
                data_fingerprint=data_fingerprint,
                start_model=start_model,
            )
        )

    def continued_with(self, config: RunConfig, *, ranks: int, data_fingerprint: str) -> "Run":
        """Returns the run with this config and number of ranks, after writing both into its directory.

        Raises:
            LongformerError: the data or a value that decides what is learned has changed.
        """
        paths, identity = self.paths, self.paths.identity()
        differences = self.config.learning_diff(config)
        if differences:
            raise LongformerError(
                f"{paths.root} holds a run of another config; choose another --run-directory or name, or undo:\n  "
                + "\n  ".join(differences)
            )
        if identity.data_fingerprint != data_fingerprint:
            raise LongformerError(
                f"{paths.root} was trained on other data (fingerprint {identity.data_fingerprint[:12]}, now "
                f"{data_fingerprint[:12]}); restore {identity.data_directory} or choose another --run-directory"
            )
        write_atomically(paths.config_file, config.to_yaml().encode())
        paths.write_identity(replace(identity, ranks=ranks, config_fingerprint=config.fingerprint()))
        return Run(paths, config)

    def phase_directory(self, index: int) -> Path:
        """Returns where everything of a phase lies, such as phases/01-short."""
        return self.paths.root / "phases" / f"{index + 1:02d}-{self.config.phases[index].name}"

    def checkpoints_directory(self, index: int) -> Path:
        """Returns where the committed checkpoints of a phase lie."""
        return self.phase_directory(index) / "checkpoints"

    def result_directory(self, index: int) -> Path:
        """Returns where model and evaluation of a phase lie; exists once the phase is done."""
        return self.phase_directory(index) / "result"

    def finished_results(self) -> list[Path]:
        """Returns the result directories of the phases that are done, in their order."""
        results = [self.result_directory(index) for index in range(len(self.config.phases))]
        return [result for result in results if result.exists()]

    def newest_result(self) -> Path:
        """Returns the result directory of the last phase that is done, checked file by file.

        Raises:
            LongformerError: no phase is done yet, or the result is damaged.
        """
        done = self.finished_results()
        if not done:
            raise LongformerError(
                f"{self.paths.root} has no finished phase yet; go on with: longformer resume {self.paths.in_shell}"
            )
        problem = damage(done[-1])
        if problem:
            raise LongformerError(
                f"{done[-1]} is damaged ({problem}); remove it, then: longformer resume {self.paths.in_shell}"
            )
        return done[-1]

    def evaluations(self) -> list[dict[str, Any]]:
        """Returns the held-out scores and costs of the phases that are done, in their order."""
        return [
            json.loads((result / "evaluation.json").read_text(encoding="utf-8")) for result in self.finished_results()
        ]

    def test_table(self, name: str = "predictions") -> list[dict[str, Any]]:
        """Returns what the newest finished phase found for every test example, as its task wrote it.

        Raises:
            LongformerError: no phase is done.
        """
        lines = (self.newest_result() / f"{name}-test.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
