"""Our models learn the same in other people's hands: under autocast, DDP, FSDP and in transformers' Trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from longformer.models.common.layer_stack import LayerStack
from longformer.training.distributed import Ranks
from tests.training.rank_group import in_ranks
from tests.training.test_zero_3 import ROWS, TASKS

STEPS, RATE = 3, 1e-3
MODELS = ("masked_lm", "sequence_classification", "summarization")
Wrap = Callable[[nn.Module], nn.Module]


def rows_of(task: str) -> dict[str, torch.Tensor]:
    """Return one batch in which every text, and so every half of it, has as many labels."""
    batch = TASKS[task][1](0)
    if task == "masked_lm":
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
        batch["labels"] = torch.full_like(batch["input_ids"], -100)
        batch["labels"][:, 5:12] = 7
    return batch


def learn(
    task: str, wrap: Wrap = lambda model: model, *, part: slice = slice(None), precision: Any = None
) -> list[float]:
    """Return the losses of a few steps on a part of the batch."""
    torch.manual_seed(1)
    model = wrap(TASKS[task][0]().train())
    batch = {name: each[part] for name, each in rows_of(task).items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    losses = []
    for _ in range(STEPS):
        with torch.autocast("cpu", precision, enabled=precision is not None):
            loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def learn_on_a_rank(ranks: Ranks, task: str, how: str) -> list[float]:
    half = ROWS // 2
    wrap = {"DDP": DistributedDataParallel, "FSDP": sharded}[how]
    return learn(task, wrap, part=slice(ranks.rank * half, (ranks.rank + 1) * half))


def sharded(model: nn.Module) -> nn.Module:
    """Shard every layer by itself, and the rest, as FSDP's documentation has it."""
    for stack in [module for module in model.modules() if isinstance(module, LayerStack)]:
        for layers in [child for child in stack.children() if isinstance(child, nn.ModuleList)]:
            for layer in layers:
                fully_shard(layer)
    return fully_shard(model)


@pytest.mark.parametrize("how", ["DDP", "FSDP"])
@pytest.mark.parametrize("task", MODELS)
def test_ranks_of_ddp_and_fsdp_learn_what_one_process_learns(task: str, how: str) -> None:
    of_ranks = in_ranks(2, learn_on_a_rank, task, how)
    np.testing.assert_allclose(np.mean(of_ranks, axis=0), learn(task), atol=1e-4)


@pytest.mark.parametrize("task", MODELS)
def test_autocast_learns_what_whole_precision_learns(task: str) -> None:
    np.testing.assert_allclose(learn(task, precision=torch.bfloat16), learn(task), rtol=1e-2)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("task", MODELS)
def test_the_trainer_of_transformers_learns_what_a_plain_loop_learns(task: str, bf16: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = TASKS[task][0]().train()
    batch = rows_of(task)
    rows = [{name: each[row] for name, each in batch.items()} for row in range(ROWS)]
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=STEPS, learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0,
        weight_decay=0.01, per_device_train_batch_size=ROWS, logging_steps=1, bf16=bf16, use_cpu=True,
        save_strategy="no", report_to=[], disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    np.testing.assert_allclose(losses, learn(task), rtol=1e-2 if bf16 else 1e-3)
