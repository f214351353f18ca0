"""Everything that depends on the inside of DeepSpeed: its private attributes, what is replaced in it, its file formats.

Each part was seen and tested in DeepSpeed 0.19.8; pyproject.toml admits no other minor version. To be gone through with
every new one: each function says what DeepSpeed lacks.
"""

import io
import logging
import math
import os
import shutil
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

if not torch.cuda.is_available():
    os.environ["DS_ACCELERATOR"] = "cpu"  # without it every process guesses, and says so

import deepspeed
import deepspeed.ops

# Half of all start-up: initialize() imports it for any optimizer. Imported here it is paid once, by the
# process that ranks are forked from.
import deepspeed.runtime.zero.muon.muon_optimizer
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.zero import parameter_offload
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from deepspeed.utils import safe_get_full_fp32_param

from longformer.models.common.outputs import ModelOutput

logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # caused by DeepSpeed
# With a compiler at hand DeepSpeed would spend 40 s building a shared-memory all-reduce for ranks on CPUs,
# after probing all its operators; we use none of them.
deepspeed.ops.__compatible_ops__ = {}

_apply_to_tensors_only = parameter_offload.apply_to_tensors_only


def _apply_to_tensors_of_outputs(function: Any, value: Any, warning_msg_fn: Any = None) -> Any:
    """Finds the tensors in what our models return, where ZeRO 3 hangs up what makes weights whole for backward."""
    if not isinstance(value, ModelOutput):
        return _apply_to_tensors_only(function, value)
    for name, each in value.items():
        value[name] = _apply_to_tensors_only(function, each)
    return value


parameter_offload.apply_to_tensors_only = _apply_to_tensors_of_outputs

PARAMETER_NAMES = "parameter_names"
"""Entry of a saved state: names of the parameters in the order of the optimizer's."""
MODEL_STATES = "mp_rank_00_model_states.pt"
"""DeepSpeed's file of what all ranks hold alike."""


def initialize(model: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> tuple[Any, Any]:
    """Returns DeepSpeed's engine around a model, and its optimizer; the process group must be up.

    Args:
        model: trained in place.
        optimizer: over its parameters.
        config: of DeepSpeed.
    """
    # What the conversion to another number of ranks looks for in a checkpoint of ZeRO 1 and 2.
    model.universal_checkpoint_info = {"universal_checkpoint_version": 0.2}  # type: ignore[assignment]
    deepspeed.init_distributed(dist_backend=torch.distributed.get_backend())
    engine, optimizer, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    if isinstance(optimizer, DeepSpeedZeroOptimizer) and optimizer.overlap_comm:
        _order_streams(optimizer)
    return engine, optimizer


def _order_streams(optimizer: Any) -> None:
    """Has the device wait where the host would.

    While gradients are reduced on a stream of its own, DeepSpeed's ZeRO 1 and 2 halt the host at the end of every
    backward until the whole device is done. That one stream waits for the other is enough.
    """
    accelerator, finish = get_accelerator(), optimizer.independent_gradient_partition_epilogue
    synchronize = accelerator.synchronize

    def wait_for_reduction(*_: Any) -> None:
        accelerator.current_stream().wait_stream(optimizer.reduction_stream)

    def finish_backward() -> None:
        accelerator.synchronize = wait_for_reduction
        try:
            finish()
        finally:
            accelerator.synchronize = synchronize

    optimizer.independent_gradient_partition_epilogue = finish_backward


def supports_fp16() -> bool:
    """Returns whether the device computes in float16."""
    return bool(get_accelerator().is_fp16_supported())


def full_parameter(parameter: nn.Parameter) -> Tensor | None:
    """Returns a parameter whole in fp32, wherever ZeRO has sharded it; None: it has not; all ranks must call it."""
    full: Tensor | None = safe_get_full_fp32_param(parameter)
    return full


def step(engine: Any, optimizer: Any, accepted: Callable[[Tensor], float]) -> None:
    """Takes the step at the end of an accumulation, unless its gradient is refused.

    DeepSpeed asks for overflow and for norms again and again, ZeRO 0 in half precision once for every parameter, and
    waits for the device each time. Here the norm is computed without waiting and `accepted` reads it, once.

    Args:
        engine, optimizer: of `initialize`; ZeRO, or half precision.
        accepted: given the norm of the gradient over all ranks, times the loss scale, () on the device, returns it as a
            number. Of one that is not finite DeepSpeed drops the gradient, as after an overflow.
    """

    def norm_on_host(norm: Tensor) -> Tensor:
        return torch.tensor(accepted(norm))  # DeepSpeed calculates with a tensor, but on the CPU it waits for none

    if isinstance(optimizer, FP16_UnfusedOptimizer):
        optimizer.step = lambda: _step_of_masters(optimizer, accepted)
    else:
        optimizer.check_overflow = lambda **_: None  # the norm tells
        if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
            optimizer._get_norm_groups = lambda: [norm_on_host(_norm_of_shards(optimizer))]
        else:
            optimizer.scaled_global_norm = lambda: norm_on_host(_norm_of_shards(optimizer))
    engine.step()


def _norm_of_shards(optimizer: Any) -> Tensor:
    """Returns the norm of the gradient of which every rank has its shards."""
    if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        in_main_memory = optimizer.fp32_partitioned_groups_flat if optimizer.offload_optimizer else None
    else:
        in_main_memory = optimizer.single_partition_of_fp32_groups if optimizer.cpu_offload else None
    if in_main_memory is None:
        gradients = [each for group in optimizer.averaged_gradients.values() for each in group]
    else:
        gradients = [each.grad for each in in_main_memory]
    squares = _norm(gradients).square().to(get_accelerator().current_device_name())
    torch.distributed.all_reduce(squares, group=optimizer.dp_process_group)
    return squares.sqrt()


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    norms = [torch.linalg.vector_norm(each, dtype=torch.float32) for each in gradients]
    return torch.linalg.vector_norm(torch.stack(norms))


def _step_of_masters(optimizer: Any, accepted: Callable[[Tensor], float]) -> bool:
    """Does what `FP16_UnfusedOptimizer.step` does; returns whether the gradient was dropped."""
    pairs = list(zip(chain(*optimizer.fp16_groups), chain(*optimizer.fp32_groups), strict=True))
    norm = accepted(_norm([parameter.grad for parameter, _ in pairs if parameter.grad is not None]))
    optimizer.overflow = not math.isfinite(norm)
    if optimizer.overflow:
        return bool(optimizer._skip_invalid_grad_norm())
    for parameter, master in pairs:
        master.grad = torch.zeros_like(master) if parameter.grad is None else parameter.grad.to(master.dtype)
    optimizer._global_grad_norm = norm / optimizer.loss_scale_config.cur_scale
    optimizer._update_scale(False)
    optimizer.unscale_and_clip_grads(norm)
    optimizer.optimizer.step()
    for parameter, master in pairs:
        master.grad = None
        parameter.data.copy_(master)
    return False


def gathered(parameter: nn.Parameter) -> Tensor:
    """Returns a copy of a parameter, whole where ZeRO 3 has sharded it; all ranks must call it."""
    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def master_weights(optimizer: Any) -> dict[Tensor, Tensor]:
    """Returns the fp32 copy of every parameter, for half precision without ZeRO, which has no public access to them."""
    return dict(zip(chain(*optimizer.fp16_groups), chain(*optimizer.fp32_groups), strict=True))


@contextmanager
def saving_to_memory(engine: Any) -> Iterator[dict[Path, bytes | memoryview]]:
    """Within the block `engine.save_checkpoint` fills the yielded dictionary, path to content, instead of writing.

    DeepSpeed's own asynchronous engines need compiled operators or a second process.
    """
    to_files, to_memory = engine.checkpoint_engine, _InMemory()
    engine.checkpoint_engine = to_memory
    try:
        yield to_memory.files
    finally:
        engine.checkpoint_engine = to_files


class _InMemory(TorchCheckpointEngine):
    """Saves to memory instead of files."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[Path, bytes | memoryview] = {}

    def save(self, state_dict: Any, path: str) -> None:
        """Keeps what the file would hold."""
        content = io.BytesIO()
        torch.save(state_dict, content)
        self.files[Path(path)] = content.getbuffer()


def load_checkpoint(engine: Any, directory: Path, tag: str, *, universal: bool) -> bool:
    """Loads a state and returns whether there was one; all ranks must call it.

    DeepSpeed takes the choice between its own and its universal format from the config it was initialized with, so it
    is set there.
    """
    engine._config.load_universal_checkpoint = universal
    path, _ = engine.load_checkpoint(str(directory), tag=tag)
    return path is not None


def separate_groups(optimizer: torch.optim.Optimizer, weight_decays: Sequence[float]) -> None:
    """Undoes what ZeRO 3 does when it loads a universal state: one step counter and one weight decay for all groups."""
    for group, weight_decay in zip(optimizer.param_groups, weight_decays, strict=True):
        group["weight_decay"] = weight_decay
    for state in optimizer.state.values():
        state["step"] = state["step"].clone()


@torch.no_grad()
def load_universal_without_zero(module: nn.Module, optimizer: Any, masters: dict[Tensor, Tensor], state: Path) -> None:
    """Loads a universal state without ZeRO, for which DeepSpeed has no loader.

    Args:
        module: the model inside the engine.
        optimizer: of the engine.
        masters: of `master_weights`; empty in fp32.
        state: the folder of a universal state with one folder for each parameter.
    """
    adamw = optimizer.optimizer if masters else optimizer
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue  # a frozen one is in no optimizer and in no universal state, and is as it was

        def saved(tensor: str, folder: Path = state / name, like: Tensor = parameter) -> Tensor:
            return torch.load(folder / f"{tensor}.pt", weights_only=True)["param"].view_as(like).to(like.device)

        master = masters.get(parameter, parameter)
        master.copy_(saved("fp32"))
        parameter.copy_(master)
        adamw.state[master] = {
            "step": torch.load(state / name / "step.pt", weights_only=True).clone(),
            "exp_avg": saved("exp_avg"),
            "exp_avg_sq": saved("exp_avg_sq"),
        }


def merge_shards(source: Path, target: Path) -> None:
    """Writes a universal state from the shards of all ranks, by DeepSpeed's converter; ZeRO 1 to 3.

    Args:
        source: folder of a state as `save_checkpoint` wrote it.
        target: folder of the universal state.
    """
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
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        ds_to_universal.main(options)
    (target.parent / "latest_universal").unlink()
    _complete_for_every_stage(target)


def split_whole_state(source: Path, target: Path) -> None:
    """Writes a universal state from one without ZeRO, which DeepSpeed's converter does not know; as `merge_shards`."""
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
    """Adds what DeepSpeed's loader for one stage looks for and its converter for another does not write."""
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
