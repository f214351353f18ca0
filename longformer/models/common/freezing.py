"""Training part of a model: the new position rows of a converted one and nothing else, or all but what is never used.

What is frozen stays the same bit by bit. A gradient of 0 would not do, because weight decay would still change it. So
a table that is frozen in part becomes a constant and a parameter, which no optimizer, sharded or not, can mistake for
one another.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

# Keys of a converted model's config.json.
PRETRAINED_ROWS = "pretrained_position_rows"
"""How many rows at the start of the encoder's position table come from the source."""
FREEZE_PRETRAINED = "freeze_pretrained"
"""Whether training is to change the other rows only."""

POSITION_TABLES = ("embeddings.position_embeddings", "encoder.embed_positions")


class PartlyFrozenTable(nn.Embedding):
    """A table whose first rows are constant; `weight` is the rows below them.

    Args:
        table: (rows, width).
        frozen: number of constant rows.
    """

    pretrained: Tensor

    def __init__(self, table: Tensor, frozen: int) -> None:
        super().__init__(len(table) - frozen, table.shape[1], _weight=table[frozen:].clone())
        self.register_buffer("pretrained", table[:frozen].clone())

    def forward(self, ids: Tensor) -> Tensor:
        """Returns the rows that `ids` names."""
        return functional.embedding(ids, self.whole())

    def whole(self) -> Tensor:
        """Returns the table as one tensor."""
        return torch.cat([self.pretrained, self.weight])


def freeze_pretrained(model: nn.Module, rows: int) -> nn.Parameter:
    """Freezes a Longformer or an LED, in place, but for the rows of the encoder's position table from `rows` on.

    Call it before an optimizer is made. `save_pretrained` writes the table as one, as ever.

    Args:
        model: a model of `longformer.models`, with or without a head.
        rows: how many rows stay as they are; for a converted model `model.config.other[PRETRAINED_ROWS]`.

    Returns:
        The one parameter that is left to train, (new rows, hidden size).

    Raises:
        ValueError: the table has no row beyond `rows`.
    """
    name = next(name for name, _ in model.named_modules() if name.endswith(POSITION_TABLES))
    table = model.get_parameter(f"{name}.weight").detach()
    if not 0 < rows < len(table):
        raise ValueError(f"rows must be from 1 to {len(table) - 1}, the table's last row, got {rows}")
    model.requires_grad_(False)
    model.set_submodule(name, PartlyFrozenTable(table, rows))
    return model.get_parameter(f"{name}.weight")


def freeze_global_projections(model: nn.Module) -> None:
    """Freezes the projections that only global tokens use, in place.

    Where no token is global they have no gradient; left to the optimizer, they would still decay.
    """
    for name, parameter in model.named_parameters():
        if "_global." in name:
            parameter.requires_grad_(False)


def whole_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Returns all parameters by name, with the constant rows of a table that is frozen in part."""
    tables = {
        f"{name}.weight": module.whole()
        for name, module in model.named_modules()
        if isinstance(module, PartlyFrozenTable)
    }
    return dict(model.named_parameters()) | tables
