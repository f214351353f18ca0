"""Copies of a phase's checkpoints on any storage that fsspec knows, for the day the machine's own disk is gone.

A copy counts once its manifest is there, which is written last. What is fetched back is compared with the manifest
before it gets its name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from longformer.errors import LongformerError
from longformer.files import empty_staging, sync_file
from longformer.training.checkpoints.manifest import MANIFEST_FILE, Manifest, damage
from longformer.training.checkpoints.store import best_before, commit, step_of


@dataclass(frozen=True)
class CheckpointCopies:
    """The copies of one phase.

    Raises:
        LongformerError: nothing on this machine can read such a URL.
    """

    url: str
    """Such as s3://bucket/runs/mine/01-short, or a directory."""

    def __post_init__(self) -> None:
        self._storage()

    def add(self, checkpoint: Path) -> None:
        """Copies a committed checkpoint there.

        Raises:
            OSError: the storage does not take it.
        """
        storage, root = self._storage()
        target = root / checkpoint.name
        names = [*Manifest.read(checkpoint).files, MANIFEST_FILE]
        for name in names:
            storage.makedirs(str((target / name).parent), exist_ok=True)
            storage.put_file(str(checkpoint / name), str(target / name))

    def keep_only(self, checkpoints: list[Path]) -> None:
        """Removes all copies but those of `checkpoints`, manifests first, so that none looks whole meanwhile."""
        storage, root = self._storage()
        for name in set(self._names()) - {checkpoint.name for checkpoint in checkpoints}:
            storage.rm_file(str(root / name / MANIFEST_FILE))
            storage.rm(str(root / name), recursive=True)

    def fetch_newer(self, directory: Path, present: Path | None, warn: Callable[[str], None]) -> Path | None:
        """Fetches the newest whole copy into `directory` where it is newer than the checkpoint that is there already.

        With it comes the best one before it.

        Returns:
            The newest checkpoint there is now, or None without any.
        """
        try:
            names = sorted(self._names(), reverse=True)
            for name in names:
                if present is not None and step_of(Path(name)) <= step_of(present):
                    break
                staging = self._fetch(name, directory)
                problem = damage(staging)
                if problem is None:
                    commit(staging, directory / name)
                    problem = self._fetch_best(directory / name, names)
                if problem is None:
                    return directory / name
                warn(f"{self.url}/{name}: {problem}; going back to the copy before it")
        except Exception as error:  # every storage has exceptions of its own
            warn(f"{self.url} cannot be read ({error}); going on without it")
        return present

    def _fetch_best(self, checkpoint: Path, names: list[str]) -> str | None:
        """Fetches the best checkpoint before a fetched one where it is not there; returns what is wrong with it."""
        best = best_before(checkpoint)
        if best is None or damage(best) is None:
            return None
        if best.name not in names:
            return f"the best checkpoint before it, {best.name}, is missing"
        staging = self._fetch(best.name, best.parent)
        problem = damage(staging)
        if problem is None:
            commit(staging, best)
        return problem

    def _fetch(self, name: str, directory: Path) -> Path:
        storage, root = self._storage()
        staging = empty_staging(directory / name)
        storage.get_file(str(root / name / MANIFEST_FILE), str(staging / MANIFEST_FILE))
        for file in Manifest.read(staging).files:
            (staging / file).parent.mkdir(parents=True, exist_ok=True)
            storage.get_file(str(root / name / file), str(staging / file))
            sync_file(staging / file)
        return staging

    def _names(self) -> list[str]:
        storage, root = self._storage()
        return [PurePosixPath(path).parent.name for path in storage.glob(str(root / "step-*" / MANIFEST_FILE))]

    def _storage(self) -> tuple[Any, PurePosixPath]:
        from fsspec.core import url_to_fs

        try:
            storage, root = url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise LongformerError(f"training.checkpoint_copies: {self.url} cannot be used ({error})") from error
        return storage, PurePosixPath(root)
