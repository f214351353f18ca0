"""Training the new position rows of a converted model and nothing else: all the rest stays the same bit by bit.

A gradient of 0 would not do, because weight decay would still change the frozen rows of the table. So the table
becomes a constant and a parameter, which no optimizer, sharded or not, can mistake for one another.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

# Keys of a converted model's config.json.
PRETRAINED_ROWS = "pretrained_position_rows"
"""How many rows at the start of the encoder's position table come from the source."""
FREEZE_PRETRAINED = "freeze_pretrained"
"""Whether training is to change the other rows only."""

POSITION_TABLES = ("embeddings.position_embeddings", "encoder.embed_positions")


class PretrainedAndNewRows(nn.Module):
    """Makes a table of constant rows and, below them, the rows of a parameter."""

    pretrained: Tensor

    def __init__(self, pretrained: Tensor) -> None:
        super().__init__()
        self.register_buffer("pretrained", pretrained)

    def forward(self, new: Tensor) -> Tensor:
        """Return the whole table."""
        return torch.cat([self.pretrained, new])

    def right_inverse(self, table: Tensor) -> Tensor:
        """Return the rows that become the parameter."""
        return table[len(self.pretrained) :].clone()


def freeze_pretrained(model: nn.Module, rows: int) -> nn.Parameter:
    """Freeze a Longformer or an LED, in place, but for the rows of the encoder's position table from `rows` on.

    Call it before an optimizer is made. `save_pretrained` writes the table as one, as ever.

    Args:
        model: a model of `longformer.models`, with or without a head.
        rows: how many rows stay as they are; for a converted model `model.config.other[PRETRAINED_ROWS]`.

    Returns:
        The one parameter that is left to train, (new rows, hidden size).

    Raises:
        ValueError: the table has no row beyond `rows`.
    """
    table = position_table(model)
    weight: Tensor = table.weight
    if not 0 < rows < len(weight):
        raise ValueError(f"rows must be from 1 to {len(weight) - 1}, the table's last row, got {rows}")
    model.requires_grad_(False)
    parametrize.register_parametrization(table, "weight", PretrainedAndNewRows(weight.detach()[:rows].clone()))
    new = table.parametrizations.weight.original
    return new.requires_grad_()


def whole_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters by name, a position table that is frozen in part as the one tensor it stands for."""
    parameters: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        path, is_part, _ = name.partition(".parametrizations.weight.")
        parameters[f"{path}.weight" if is_part else name] = model.get_submodule(path).weight if is_part else parameter
    return parameters


def position_table(model: nn.Module) -> nn.Embedding:
    """Return the encoder's table of positions."""
    return next(module for name, module in model.named_modules() if name.endswith(POSITION_TABLES))
