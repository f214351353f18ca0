"""`longformer convert`: make a long model of a short one, and say what became of its tensors."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from longformer.errors import LongformerError
from longformer.interop.conversion import Conversion
from longformer.interop.convert import convert as convert_model


def convert(
    source: Annotated[
        Path, typer.Argument(help="Folder of a RoBERTa, XLM-R, BERT, ELECTRA, BART, mBART, Longformer or LED model.")
    ],
    target: Annotated[Path, typer.Argument(help="The folder to make.")],
    max_length: Annotated[int, typer.Option(help="Tokens that the new model reads.")] = 4096,
    window: Annotated[int, typer.Option(help="Neighbours that a token sees, both sides together.")] = 512,
    freeze_pretrained: Annotated[
        bool, typer.Option("--freeze-pretrained", help="Let training change the new position rows only.")
    ] = False,
    special_tokens: Annotated[
        list[str] | None,
        typer.Option(
            "--special-token", metavar="TOKEN", help="Special token that stands for itself in documents; repeat."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the names of all tensors as JSON.")] = False,
) -> None:
    """Make a Longformer or an LED of a short model: positions repeat, global projections start as the local ones."""
    try:
        report = convert_model(
            source,
            target,
            max_length=max_length,
            window=window,
            freeze_pretrained=freeze_pretrained,
            special_tokens=special_tokens or None,
        )
    except ValueError as error:
        raise LongformerError(str(error)) from error
    if as_json:
        print(json.dumps(asdict(report), indent=1))
    else:
        show(report, target, max_length)


def show(report: Conversion, target: Path, max_length: int) -> None:
    """Prints what became of the tensors."""
    console = Console()
    lines = [f"{target} reads {max_length:,} tokens"]
    lines.append(f"  equals       its source up to {report.equal_length:,} tokens")
    lines.append(f"  copied       {len(report.copied)} tensors")
    lines.append(f"  extended     {', '.join(report.extended)}")
    lines.append(f"  initialised  {len(report.initialised)} global projections, as copies of the local ones")
    if report.left_out:
        lines.append(f"  left out     {', '.join(report.left_out)}")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
