"""`longformer register`: put a trained model into the MLflow registry."""

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from launcher.config.mlflow_address import ADDRESS_VARIABLE, address_here, address_of_run, without_credentials
from launcher.tracking.registry.conditions import Condition
from longformer.errors import LongformerError, WorkFailed


def register(
    source: Annotated[Path, typer.Argument(metavar="RUN_DIR|MODEL_DIR", help="A run, or a Longformer or LED folder.")],
    name: Annotated[str, typer.Option(help="Name in the registry; a model of that name gets a new version.")],
    metric: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A score to store with it, such as rouge2=0.21.")
    ] = None,
) -> None:
    """Put a trained model into the MLflow registry, ready to be loaded and served without the training stack."""
    given = dict(_score(text) for text in metric or [])
    # They import MLflow and torch, which takes seconds.
    from launcher.tracking.registry.export import Exportable
    from launcher.tracking.registry.models import ModelRegistry
    from launcher.tracking.registry.register import register as put

    exportable = Exportable.find(source)
    exportable = replace(exportable, metrics=exportable.metrics | given)
    run = exportable.run
    address = address_of_run(run.config.tracking.uri, run.paths.root) if run else address_here()
    model = put(ModelRegistry(address), exportable, name)
    print(f"{model} is registered in {without_credentials(address)} ({model.task})")
    for metric_name, value in sorted(model.metrics.items()):
        print(f"  {metric_name} = {value:g}")
    print(
        f"serve it: {ADDRESS_VARIABLE}={shlex.quote(without_credentials(address))} mlflow models serve "
        f"--model-uri {model.address} --env-manager local"
    )


def _score(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        score = float(value)
    except ValueError:
        score = math.nan
    if not (name and equals and math.isfinite(score)):
        raise LongformerError(f"--metric {text}: write NAME=VALUE, such as rouge2=0.21")
    return name, score


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
    from launcher.tracking.registry.models import (  # which imports MLflow, which takes seconds
        ModelAddress,
        ModelRegistry,
    )

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
