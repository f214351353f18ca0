"""Checkpoints for another number of ranks or another ZeRO stage, through DeepSpeed's universal format.

A universal copy holds every parameter and its optimizer state whole, one folder each. It lies beside the checkpoint
it was made of, is committed like one, and is made once: whoever comes second waits and finds it.
"""

import dataclasses
import fcntl
import os
import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from longformer.files import empty_staging
from longformer.training.checkpoints.manifest import Manifest, damage
from longformer.training.checkpoints.store import commit, universal_path
from longformer.training.checkpoints.write import RANDOM_STATES, STATE, explained
from longformer.training.engine import PARAMETER_NAMES

MODEL_STATES = "mp_rank_00_model_states.pt"
"""DeepSpeed's file of what all ranks hold alike."""


def universal_copy(checkpoint: Path) -> Path:
    """Return the universal copy of a verified checkpoint, made now where it is missing or damaged.

    Raises:
        LongformerError: it cannot be written.
    """
    manifest = Manifest.read(checkpoint)
    target = universal_path(checkpoint)
    with _one_writer(checkpoint.parent), explained(target):
        if target.exists() and damage(target) is None:
            return target
        staging = empty_staging(target)
        (staging / STATE).mkdir()
        if manifest.zero_stage == 0:
            _take_apart(checkpoint / STATE, staging / STATE)
        else:
            _merge_shards(checkpoint / STATE, staging / STATE)
        for random_state in (checkpoint / STATE).glob(RANDOM_STATES):
            shutil.copyfile(random_state, staging / STATE / random_state.name)
        copied = dataclasses.replace(manifest, is_universal=True).with_files_of(staging)
        copied.write(staging)
        commit(staging, target)
    return target


def _merge_shards(source: Path, target: Path) -> None:
    """Let DeepSpeed put the shards of all ranks together."""
    # Imported here: it brings all of DeepSpeed, and most runs never need it in the process that drives them.
    from deepspeed.checkpoint import ds_to_universal

    options = Namespace(
        input_folder=str(source),
        output_folder=str(target),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=False,
    )
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        ds_to_universal.main(options)
    (target.parent / "latest_universal").unlink()
    _complete_for_every_stage(target)


def _take_apart(source: Path, target: Path) -> None:
    """Write what every rank holds whole without ZeRO; DeepSpeed's converter does not know this stage."""
    # Our own checkpoint, compared with its manifest just now.
    saved: dict[str, Any] = torch.load(source / MODEL_STATES, weights_only=False, map_location="cpu")
    names = saved[PARAMETER_NAMES]
    optimizer = saved["optimizer"]
    if "fp32_groups" in optimizer:  # half precision
        weights = dict(zip(names, chain(*optimizer["fp32_groups"]), strict=True))
        optimizer = optimizer["optimizer_state_dict"]
    else:
        weights = saved["module"]
    for index, name in enumerate(names):
        folder = target / "zero" / name
        folder.mkdir(parents=True)
        state = optimizer["state"][index]
        torch.save(state["step"], folder / "step.pt")
        torch.save({"param": weights[name]}, folder / "fp32.pt")
        for moment in ("exp_avg", "exp_avg_sq"):
            torch.save({"param": state[moment]}, folder / f"{moment}.pt")
    shutil.copyfile(source / MODEL_STATES, target / MODEL_STATES)
    common = {"param_groups": optimizer["param_groups"]}
    torch.save(common, target / "zero" / "optimizer_state.pt")
    _complete_for_every_stage(target)


def _complete_for_every_stage(state: Path) -> None:
    """Add what DeepSpeed's loader for one stage looks for and its converter for another does not write."""
    path = state / "zero" / "optimizer_state.pt"
    # Our own checkpoint, compared with its manifest just now.
    optimizer: dict[str, Any] = torch.load(path, weights_only=False)
    # A frozen parameter has a folder, too, but no optimizer state in it.
    parameters = [moment.parent for moment in (state / "zero").glob("*/exp_avg.pt")]
    if "optimizer_state_dict" in optimizer:  # written by ZeRO 3
        step = optimizer["optimizer_state_dict"]["state"][0]["step"]
        for parameter in parameters:
            torch.save(step, parameter / "step.pt")
            for tensor in ("fp32", "exp_avg", "exp_avg_sq"):
                whole = torch.load(parameter / f"{tensor}.pt", weights_only=True)
                torch.save({"param": whole}, parameter / f"{tensor}.pt")
    else:
        step = torch.load(parameters[0] / "step.pt", weights_only=True)
        optimizer["optimizer_state_dict"] = {"param_groups": optimizer["param_groups"], "state": {0: {"step": step}}}
    torch.save(optimizer | {"ds_version": version("deepspeed")}, path)
    metadata = next(state.glob("*mp_rank_00_model_states.pt"))
    for name in (MODEL_STATES, "zero_pp_rank_0_mp_rank_00_model_states.pt"):
        if not (state / name).exists():
            shutil.copyfile(metadata, state / name)


@contextmanager
def _one_writer(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory / ".reshard.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
