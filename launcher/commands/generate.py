"""`longformer generate`: let a trained model continue a text, character by character."""

import codecs
from typing import Annotated

import typer

from launcher.tracking.registry.open_model import model_folder, open_model
from longformer.errors import LongformerError
from longformer.inference.characters import CharacterPredictor


def generate(
    source: Annotated[
        str, typer.Argument(metavar="RUN_DIR|MODEL", help="A run, the folder of a model, or models:/NAME@ALIAS.")
    ],
    prompt: Annotated[str, typer.Option(help="The text to continue.")],
    characters: Annotated[int, typer.Option(min=1, help="How many to write.")] = 400,
    temperature: Annotated[float, typer.Option(min=0, help="Below 1 safer, above 1 wilder; 0 = most probable.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw only among so many most probable ones.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed writes the same text.")] = 0,
) -> None:
    """Continue a text with a trained model; every character appears as soon as it is drawn."""
    if not prompt:
        raise LongformerError("the prompt is empty: give at least one character to continue")
    with open_model(source) as found:
        predictor = CharacterPredictor.load(model_folder(found.folder))
    print(prompt, end="", flush=True)
    # A token is a byte: a character of several bytes appears with its last one.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for written in predictor.continuation(
        prompt, characters=characters, temperature=temperature, top_k=top_k, seed=seed
    ):
        print(decoder.decode(written), end="", flush=True)
    print(decoder.decode(b"", final=True))
