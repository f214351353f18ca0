"""`longformer inspect`: what a model folder holds, without loading it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from longformer.errors import LongformerError
from longformer.inference.inspect import Checkpoint, inspect_folder
from longformer.models.led.config import LEDConfig


def inspect(
    directory: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="Folder of a Longformer or an LED.")],
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the text to estimate memory for; the longest unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what a Longformer or an LED is: family, sizes, windows, positions, parameters, memory at a length."""
    try:
        found = inspect_folder(directory, length=length)
    except ValueError as error:
        raise LongformerError(str(error)) from error
    if as_json:
        print(json.dumps(asdict(found), indent=1))
    else:
        Console().print("\n".join(lines_of(directory, found)), highlight=False, markup=False, soft_wrap=True)


def lines_of(directory: Path, found: Checkpoint) -> list[str]:
    """Returns what is known as lines of text."""
    encoder, config = found.encoder, found.config
    windows = [2 * config.band(layer).left for layer in range(encoder.layers)]
    window = f"{windows[0]:,} in every layer" if len(set(windows)) == 1 else ", ".join(map(str, windows))
    facts = {
        "layout": found.layout,
        "encoder": f"{encoder.layers} layers, width {encoder.width:,}, {encoder.heads} heads, "
        f"feed-forward {encoder.inner_width:,}",
        "windows": f"{window} (both sides together)",
        "positions": f"{encoder.positions:,} tokens",
        "vocabulary": f"{config.vocab_size:,} tokens",
        "tokenizer": found.tokenizer or "none that can be read",
    }
    if isinstance(config, LEDConfig):
        facts["decoder"] = (
            f"{config.decoder_layers} layers, {config.decoder_attention_heads} heads, "
            f"{config.max_decoder_position_embeddings:,} tokens"
        )
    if found.pretrained_rows is not None:
        only = "; training is to change the new ones only" if found.freeze_pretrained else ""
        facts["converted"] = (
            f"{found.pretrained_rows:,} rows of positions from the source, the others repeat them{only}"
        )
    memory = found.memory
    facts["memory"] = (
        f"about {memory.reading / 2**20:,.0f} MiB to read {found.length:,} tokens, {memory.training / 2**20:,.0f} MiB "
        "to train on them (an estimate: float32, one text, AdamW)"
    )
    title = f"{directory}: {found.architecture}, {found.parameters:,} parameters, {' and '.join(found.dtypes)}"
    return [title, *(f"  {name:<11}{fact}" for name, fact in facts.items())]
