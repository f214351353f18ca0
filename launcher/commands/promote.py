"""`longformer promote`: give a version of a registered model an alias, if it is good enough."""

from typing import Annotated

import typer

from launcher.mlflow_address import address_here
from launcher.registry.conditions import Condition
from longformer.errors import WorkFailed


def promote(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A registered model.")],
    alias: Annotated[str, typer.Option(help="What the version is to be called: models:/NAME@ALIAS.")] = "champion",
    version: Annotated[int | None, typer.Option(min=1, help="The newest unless given.")] = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option("--if", metavar="CONDITION", help='Such as "rouge2 >= 0.19"; all that are given must hold.'),
    ] = None,
    even_if_worse: Annotated[
        bool, typer.Option("--even-if-worse", help="Do not compare with the version that has the alias now.")
    ] = False,
) -> None:
    """Give a version an alias if its metrics meet every condition and none is worse than the present holder's."""
    demands = [Condition.parse(text) for text in conditions or []]
    from launcher.registry.models import ModelAddress, ModelRegistry  # which imports MLflow, which takes seconds

    registry = ModelRegistry(address_here())
    model = registry.find(ModelAddress(name, None, str(version))) if version else registry.newest(name)
    holder = registry.holder(name, alias)
    for demand in demands:
        value = demand.value_in(model.metrics, str(model))
        if not demand.holds(value):
            raise WorkFailed(
                f"{model} does not become {alias}: its {demand.metric} is {value:g}, not {demand.comparison} "
                f"{demand.limit:g}"
            )
        if holder is None or holder == model or even_if_worse:
            continue
        present = demand.value_in(holder.metrics, f"{holder}, which is {alias} now,")
        if not demand.is_no_worse(value, present):
            raise WorkFailed(
                f"{model} does not become {alias}: its {demand.metric} is {value:g}, worse than the {present:g} of "
                f"{holder}, which is {alias} now; --even-if-worse lifts this"
            )
    registry.give_alias(model, alias)
    before = "" if holder is None or holder == model else f", before it was version {holder.version}"
    print(f"{model} is {alias} now{before}: models:/{name}@{alias}")
