"""`longformer checkpoint`: what a run can resume from; check it, convert it, thin it out, compare two."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from launcher.reporting.terminal import terminal, terminal_table
from launcher.reporting.text import short
from launcher.runs.run import Run
from longformer.errors import LongformerError, WorkFailed
from longformer.training.checkpoints.manifest import MANIFEST_FILE, Manifest, damage
from longformer.training.checkpoints.store import (
    best_before,
    committed_checkpoints,
    newest_good_checkpoint,
    prune_checkpoints,
    universal_path,
)

app = typer.Typer(no_args_is_help=True)

RunPath = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of a run.")]
CheckpointPath = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A directory such as RUN_DIR/phases/01-short/checkpoints/step-....")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class Entry:
    """A committed checkpoint or a universal copy of one."""

    path: Path
    manifest: Manifest

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file["size"] for file in self.manifest.files.values())

    def as_json(self) -> dict[str, Any]:
        """Returns what `ls --json` prints of it."""
        manifest = self.manifest
        return {
            "path": str(self.path),
            "phase": manifest.phase,
            "step": manifest.progress.step,
            "global_step": manifest.progress.global_step,
            "tokens": manifest.progress.tokens,
            "ranks": manifest.ranks,
            "zero_stage": manifest.zero_stage,
            "precision": manifest.precision,
            "universal": manifest.is_universal,
            "bytes": self.size,
        }


@app.command("ls")
def list_checkpoints(run_directory: RunPath, as_json: AsJson = False) -> None:
    """List a run's checkpoints, oldest first; says nothing about whether they are whole (see verify)."""
    entries = list(_entries(Run.open(run_directory)))
    if as_json:
        print(json.dumps([entry.as_json() for entry in entries], indent=2))
        return
    if not entries:
        print(f"{run_directory} has no checkpoint yet")
        return
    rows = []
    for entry in entries:
        manifest = entry.manifest
        ranks = f"{manifest.ranks} rank{'s' if manifest.ranks > 1 else ''}, ZeRO {manifest.zero_stage}"
        rows.append(
            (
                entry.path.name,
                manifest.phase,
                f"{manifest.progress.step:,}",
                short(manifest.progress.tokens),
                ranks + (", for any" if manifest.is_universal else ""),
                f"{short(entry.size)}B",
                datetime.fromtimestamp((entry.path / MANIFEST_FILE).stat().st_mtime).isoformat(" ", "minutes"),
            )
        )
    headings = ("checkpoint", "phase", "step", "tokens", "written by", "size", "at")
    # A name is that of a step, which two phases may share.
    terminal().print(terminal_table(headings, rows, names=2, words=("written by", "at")))


@app.command("verify")
def verify(path: Annotated[Path, typer.Argument(metavar="RUN_DIR|CHECKPOINT", help="What to check.")]) -> None:
    """Compare every file of one checkpoint, or of all of a run's, with its size and checksum; exit code 1 on damage."""
    is_one = (path / MANIFEST_FILE).exists()
    checkpoints = [path] if is_one else [entry.path for entry in _entries(Run.open(path))]
    problems = 0
    with Console(stderr=True).status("verifying") as status:
        for checkpoint in checkpoints:
            status.update(f"verifying {checkpoint}")
            problem = damage(checkpoint)
            problems += problem is not None
            print(f"{checkpoint}: {problem or 'whole'}")
    if problems:
        raise WorkFailed(f"{problems} of {len(checkpoints)} checkpoints are damaged; resume passes over them")


@app.command("reshard")
def reshard(checkpoint: CheckpointPath) -> None:
    """Write a copy that any number of ranks and any ZeRO stage can load; resume does it by itself where it must."""
    problem = damage(checkpoint)
    if problem:
        raise LongformerError(problem)
    from longformer.training.checkpoints.reshard import universal_copy

    with Console(stderr=True).status(f"converting {checkpoint.name}"):
        copy = universal_copy(checkpoint)
    print(copy)


@app.command("prune")
def prune(
    run_directory: RunPath,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest of every phase stay.")] = 1,
) -> None:
    """Remove old checkpoints of a run that is not running; the newest whole and the best of every phase always stay."""
    run = Run.open(run_directory)
    with run.paths.locked():
        before = list(_entries(run))
        for directory in _directories(run):
            good = newest_good_checkpoint(directory, warn=lambda problem: typer.echo(f"warning: {problem}", err=True))
            prune_checkpoints(directory, keep, spared=[] if good is None else [good, best_before(good)])
        left = {entry.path for entry in _entries(run)}
    freed = sum(entry.size for entry in before if entry.path not in left)
    print(f"removed {len(before) - len(left)} of {len(before)} checkpoints, {short(freed)}B")


@app.command("diff")
def diff(first: CheckpointPath, second: CheckpointPath, as_json: AsJson = False) -> None:
    """Tell in what two checkpoints differ: where training stood, and by how much every weight moved."""
    for checkpoint in (first, second):
        problem = damage(checkpoint)
        if problem:
            raise LongformerError(problem)
    from longformer.training.checkpoints.compare import weight_differences

    facts = [_facts(Manifest.read(checkpoint)) for checkpoint in (first, second)]
    different = {name: [facts[0][name], facts[1][name]] for name in facts[0] if facts[0][name] != facts[1][name]}
    with Console(stderr=True).status("comparing weights"):
        weights = weight_differences(first, second)
    if as_json:
        print(json.dumps({"facts": different, "largest_weight_differences": weights}, indent=2))
        return
    for name, (before, after) in different.items():
        print(f"{name}: {before} -> {after}")
    moved = {name: difference for name, difference in weights.items() if difference}
    if not moved:
        print(f"all {len(weights)} weights are identical")
        return
    rows = [(name, f"{difference:.3g}") for name, difference in sorted(moved.items(), key=lambda item: -item[1])]
    terminal().print(terminal_table(("weight", "largest difference"), rows))
    print(f"{len(moved)} of {len(weights)} weights differ")


def _facts(manifest: Manifest) -> dict[str, Any]:
    progress = vars(manifest.progress)
    data = {f"data {name}": value for name, value in manifest.data.items()}
    setting = {name: getattr(manifest, name) for name in ("phase", "ranks", "zero_stage", "precision")}
    return setting | {name.replace("_", " "): value for name, value in progress.items()} | data


def _entries(run: Run) -> Iterator[Entry]:
    for directory in _directories(run):
        for checkpoint in committed_checkpoints(directory):
            for path in (checkpoint, universal_path(checkpoint)):
                if path.exists():
                    yield Entry(path, Manifest.read(path))


def _directories(run: Run) -> list[Path]:
    return [run.checkpoints_directory(index) for index in range(len(run.config.phases))]
