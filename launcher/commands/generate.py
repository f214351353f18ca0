"""`longformer generate`: let a trained model continue a text, character by character."""

import codecs
from typing import Annotated

import torch
import typer

from launcher.runs.run import Run
from launcher.tasks.characters.trained_model import TrainedModel, newest_result
from launcher.tracking.registry.open_model import opened
from longformer.errors import LongformerError
from longformer.models.char_lm.generate import generate as continuation
from longformer.models.char_lm.storage import CONFIG_FILE


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
    with opened(source) as found:
        is_model = (found.folder / CONFIG_FILE).is_file()
        trained = TrainedModel.load(found.folder if is_model else newest_result(Run.open(found.folder)) / "model")
    tokens = torch.from_numpy(trained.vocabulary.encode(prompt)).long()
    print(prompt, end="", flush=True)
    # A token is a byte: a character of several bytes appears with its last one.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in continuation(
        trained.model, tokens, new_tokens=characters, temperature=temperature, top_k=top_k, seed=seed
    ):
        print(decoder.decode(trained.vocabulary.decode_bytes([token])), end="", flush=True)
    print(decoder.decode(b"", final=True))
