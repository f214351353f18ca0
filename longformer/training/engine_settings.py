"""How weights are learned: the settings of the engine, and what DeepSpeed and AdamW are told of them."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from longformer.costs.memory import LARGEST_BUCKET, MOST_GATHERED, OVERLAPPED_BUCKET
from longformer.models.common.layer_order import layer_heights

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How the weights are learned."""

    zero_stage: Literal[0, 1, 2, 3]
    precision: Precision
    micro_batch_size: int
    """Sequences per rank and forward pass."""
    accumulation_steps: int
    """Forward passes per optimizer step."""
    gradient_clipping: float
    weight_decay: float
    layer_decay: float
    """Learning rate of a layer over that of the one above it."""
    head_learning_rate_factor: float = 1.0
    """Learning rate of what stands above all layers, such as a head, over that of the step."""
    adam_betas: tuple[float, float]
    adam_epsilon: float
    offload_optimizer: bool = False
    """Whether AdamW, its averages and its weights are in the main memory, and the update is computed on the CPU."""


def parameter_groups(
    model: nn.Module, weight_decay: float, layer_decay: float = 1.0, head_learning_rate_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Returns AdamW's groups: only the matrices of linear maps decay; biases, norms and embeddings do not.

    There are groups for every learning rate, the lowest first. `lr_scale` of a group is what that of the step is to be
    multiplied by: `head_learning_rate_factor` for what stands above all layers (see `layer_heights`), and without that
    factor `layer_decay` less for each height below.

    Decay pulls towards zero; that is a prior for the maps between features, but for a norm's gain and for
    the vectors of rare characters it would only be a loss. A matrix shared with an embedding counts as one.
    """
    spared = {
        parameter
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.LayerNorm)
        for parameter in module.parameters(recurse=False)
    }
    heights = layer_heights(model)
    top = max(heights.values())
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        height = heights[name]
        scale = head_learning_rate_factor if height == top else layer_decay ** (top - height)
        is_matrix = parameter.ndim >= 2 and parameter not in spared and "bias" not in name
        # DeepSpeed cannot do with a group of frozen parameters.
        if parameter.requires_grad:
            groups.setdefault((scale, not is_matrix), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": 0.0 if is_plain else weight_decay, "lr_scale": scale}
        for (scale, is_plain), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def set_fused(adamw: torch.optim.Optimizer, is_fused: bool) -> None:
    """Has AdamW go on in one pass or not, whichever way a state that it has loaded was trained."""
    for group in adamw.param_groups:
        group["fused"] = is_fused
    for parameter, state in adamw.state.items():
        if "step" in state:
            state["step"] = state["step"].to(parameter.device if is_fused else "cpu")


def deepspeed_config(settings: EngineSettings, parameters: int, *, overlaps: bool) -> dict[str, Any]:
    """Returns the JSON that makes DeepSpeed do what the settings say.

    Args:
        settings: how the weights are learned.
        parameters: how many the model has.
        overlaps: whether gradients go to other ranks while backward computes more of them.
    """
    zero: dict[str, Any] = {
        "stage": settings.zero_stage,
        "overlap_comm": overlaps and settings.zero_stage > 0,
        # A buffer of this many elements is really allocated; DeepSpeed's default would be 2 GB for any model.
        # Gradients are sent when it is full: one as large as the model would leave nothing to overlap.
        "reduce_bucket_size": min(parameters, OVERLAPPED_BUCKET if overlaps else LARGEST_BUCKET),
    }
    if settings.zero_stage == 3:
        # By default so much is kept that a model of up to 10^9 weights is whole on every rank after all.
        zero |= {
            "stage3_max_live_parameters": MOST_GATHERED,
            "stage3_max_reuse_distance": 0,
            "stage3_prefetch_bucket_size": MOST_GATHERED // 2,
        }
    if settings.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": settings.micro_batch_size,
        "gradient_accumulation_steps": settings.accumulation_steps,
        "zero_optimization": zero,
        # AdamW is ours, so that it is the same everywhere; DeepSpeed's own would be compiled at run time.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if settings.precision == "fp32" and settings.zero_stage == 0:
        config["gradient_clipping"] = 0.0  # TrainingEngine clips: DeepSpeed would not tell the norm
    else:
        config["gradient_clipping"] = settings.gradient_clipping
    if settings.precision != "fp32":
        config[settings.precision] = {"enabled": True}
    return config
