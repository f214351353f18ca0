"""Checkpoints for another number of ranks or another ZeRO stage, through DeepSpeed's universal format.

A universal copy holds every parameter and its optimizer state whole, one folder each. It lies beside the checkpoint
it was made of, is committed like one, and is made once: whoever comes second waits and finds it.
"""

import dataclasses
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longformer.files import empty_staging
from longformer.training.checkpoints.manifest import Manifest, damage
from longformer.training.checkpoints.store import commit, universal_path
from longformer.training.checkpoints.write import RANDOM_STATES, STATE, write_errors_explained
from longformer.training.deepspeed_compat import merge_shards, split_whole_state


def universal_copy(checkpoint: Path) -> Path:
    """Returns the universal copy of a verified checkpoint, made now where it is missing or damaged.

    Raises:
        LongformerError: it cannot be written.
    """
    manifest = Manifest.read(checkpoint)
    target = universal_path(checkpoint)
    with _one_writer(checkpoint.parent), write_errors_explained(target):
        if target.exists() and damage(target) is None:
            return target
        staging = empty_staging(target)
        (staging / STATE).mkdir()
        if manifest.zero_stage == 0:
            split_whole_state(checkpoint / STATE, staging / STATE)
        else:
            merge_shards(checkpoint / STATE, staging / STATE)
        for random_state in (checkpoint / STATE).glob(RANDOM_STATES):
            shutil.copyfile(random_state, staging / STATE / random_state.name)
        copied = dataclasses.replace(manifest, is_universal=True).with_files_of(staging)
        copied.write(staging)
        commit(staging, target)
    return target


@contextmanager
def _one_writer(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory / ".reshard.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
