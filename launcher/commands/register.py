"""`longformer register`: put a trained model into the MLflow registry."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from launcher.mlflow_address import ADDRESS_VARIABLE, address_here, address_of_run, without_credentials
from longformer.errors import LongformerError


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
    from launcher.registry.export import Exportable
    from launcher.registry.models import ModelRegistry
    from launcher.registry.registration import register as put

    exportable = Exportable.find(source)
    exportable = replace(exportable, metrics=exportable.metrics | given)
    run = exportable.run
    address = address_of_run(run.config().tracking.uri, run.path) if run else address_here()
    model = put(ModelRegistry(address), exportable, name)
    print(f"{model} is registered in {without_credentials(address)} ({model.task})")
    for metric_name, value in sorted(model.metrics.items()):
        print(f"  {metric_name} = {value:g}")
    print(
        f"serve it: {ADDRESS_VARIABLE}={without_credentials(address)} mlflow models serve "
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
