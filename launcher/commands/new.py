"""`longformer new`: a complete run file from the look of the data."""

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from launcher.planning.fit import this_machine
from launcher.planning.gpus import GPUS, gpu_of
from launcher.planning.new_run.base_model import NAMED, find_base_model
from launcher.planning.new_run.recipe import choose
from launcher.planning.new_run.yaml_writer import run_file_text
from launcher.tasks.recipes import RecipeRequest
from launcher.tasks.registry import recipe_names, recipe_of
from longformer.errors import LongformerError
from longformer.files import write_atomically


def new(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file to write.")],
    model: Annotated[
        str, typer.Option("--from", help=f"{', '.join(NAMED)}, or the folder of a model, a run, models:/NAME@ALIAS.")
    ],
    task: Annotated[str, typer.Option(help=f"What is to be learned: {', '.join(recipe_names())}.")],
    data: Annotated[Path, typer.Option(help="File or folder of the documents.")],
    ranks: Annotated[int, typer.Option(min=1, help="Processes that will train together, a GPU each.")] = 1,
    gpu: Annotated[
        str | None, typer.Option(help=f"Choose for GPUs of a kind instead of this machine: {', '.join(GPUS)}.")
    ] = None,
) -> None:
    """Look at documents and write a run file for them: lengths, batches and memory chosen, each with its reason."""
    if run_file.exists():
        raise LongformerError(f"{run_file} is there already; choose another name, or remove it")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", run_file.stem).strip("._-")
    if not name:
        raise LongformerError(f"{run_file} gives the run no name: begin it with a letter or a digit")
    if task not in recipe_names():
        raise LongformerError(f"--task {task} is not known; known are {', '.join(recipe_names())}")
    recipe, start = recipe_of(task), find_base_model(model, task)
    survey = recipe.survey(data, start.tokenizer)
    machine = this_machine(ranks) if gpu is None else gpu_of(gpu, "fp16")
    request = RecipeRequest(recipe, name, data, start, survey, machine, ranks)
    content = choose(request)
    text = run_file_text(content, request)
    run_file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(run_file, text.encode())
    devices = f"--ranks {ranks}" if gpu is None else f"--gpu {gpu} --gpus {ranks}"
    # How many steps epochs are is known once the data is prepared.
    verb, options = ("check", "") if "epochs" in content["phases"][0] else ("plan", f" {devices}")
    print(f"{run_file} is written; look through it, then: longformer {verb} {shlex.quote(str(run_file))}{options}")
    for note in survey.notes:
        print(f"note: {note}")
    if start.published is not None:
        print(f"note: put the model {start.published} into {start.source}, or say --from FOLDER")
