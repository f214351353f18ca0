"""`longformer predict`: run a Longformer or an LED on a text, or on every record of a file or folder."""

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from launcher.commands.output_file import writable
from launcher.commands.predict_files import predict_files
from launcher.tracking.registry.open_model import model_folder, open_model
from longformer.errors import LongformerError
from longformer.inference.predictor import Candidate, Piece, Predictor, task_of
from longformer.inference.serving import ABILITIES, example_of
from longformer.interop.model_folder import CONFIG_FILE


class Task(StrEnum):
    """What can be asked of a model."""

    fill_mask = "fill-mask"
    classify = "classify"
    label = "label"
    cluster = "cluster"
    choose = "choose"
    select = "select"
    answer = "answer"
    multi_hop = "multi-hop"
    summarize = "summarize"


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN_DIR|MODEL", help="A run, the folder of a Longformer or an LED, or models:/NAME@ALIAS."
        ),
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="TEXT|FILE|-",
            help="The text, a file of it, or - to read it here; with --output a file or folder of records or texts.",
        ),
    ],
    task: Annotated[Task | None, typer.Option(help="As the model's architecture says unless given.")] = None,
    question: Annotated[str | None, typer.Option(help="What is asked about the text.")] = None,
    choices: Annotated[
        list[str] | None, typer.Option("--choice", help="What may follow the text or answer it; repeat.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many tokens, classes or answers to show.")] = 5,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of the longest summary.")] = None,
    num_beams: Annotated[int | None, typer.Option(min=1, help="Summaries followed at the same time.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(callback=writable, help="Answer every record or text of FILE, as JSON lines in this new file."),
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--field", metavar="NAME=FIELD", help="With --output: where records keep it, as text=body; repeat."
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(min=1, help="With --output: texts of similar length to classify or label at a time."),
    ] = 8,
) -> None:
    """Run a Longformer or an LED: guess masked words, classify, label, cluster, choose, answer or summarize."""
    logging.basicConfig(format="%(message)s")
    if output is not None:
        if question is not None or choices:
            raise LongformerError("--question and --choice are for one text; with --output records hold what is asked")
        parameters = {"top": top, "max_new_tokens": max_new_tokens, "num_beams": num_beams}
        _predict_all(model, Path(source), output, task, fields or [], parameters, batch_size)
        return
    if fields:
        raise LongformerError("--field is for the records of a file: give --output too, the file for their answers")
    text = text_of(source)
    with open_model(model) as found:
        folder = model_folder(found.folder)
        chosen = Task(_task_of(folder)) if task is None else task
        check_options(chosen, question, choices)
        predictor = Predictor.load(folder, chosen)
    result: Any
    more: dict[str, Any] = {}
    match chosen:
        case Task.fill_mask:
            result = predictor.fill_mask(text, top=top)
        case Task.classify:
            result = predictor.classify(text, question)[:top]
        case Task.label:
            result = predictor.label(text)
            if (entities := predictor.entities(text, result)) is not None:
                more = {"entities": entities}
        case Task.cluster:
            result = predictor.cluster(text)
        case Task.choose:
            likely = predictor.choose(text, choices or [], question=question or "")
            result = sorted(likely, key=lambda candidate: -candidate.score)[:top]
        case Task.select:
            assert question is not None
            likely = predictor.select(question, choices or [], [text])
            result = sorted(likely, key=lambda candidate: -candidate.score)[:top]
        case Task.answer:
            assert question is not None
            answers = predictor.answer(question, text, top=top)
            result, more = answers.answers, {"answer": answers.answer, "no_answer": answers.no_answer}
        case Task.multi_hop:
            assert question is not None
            hops = predictor.multi_hop(question, text.split("\n\n"))
            result = Candidate(hops.answer, hops.score)
            more = {"facts": [fact._asdict() for fact in hops.facts]}
        case Task.summarize:
            result = summary(predictor, text, max_new_tokens=max_new_tokens, num_beams=num_beams)
    if as_json:
        print(json.dumps({"task": chosen, "result": result, **more}, default=asdict, indent=1, ensure_ascii=False))
    elif chosen is Task.fill_mask:
        for number, candidates in enumerate(result, 1):
            print(f"mask {number}")
            show(candidates)
    elif chosen is Task.summarize:
        print(result)
    elif chosen is Task.label:
        for each in more.get("entities", result):
            print(f"  {each.score:.4f}  {each.label}  {each.text}")
    elif chosen is Task.cluster:
        for cluster in result:
            print("  " + "; ".join(mention.text for mention in cluster))
        if not result:
            print("  (no mentions)")
    elif chosen is Task.multi_hop:
        show([result])
        for fact in more["facts"]:
            print(f"          {fact['title']}: {fact['text'].strip()}")
    else:
        if chosen is Task.answer and not more["answer"]:
            print(f"  {more['no_answer']:.4f}  (no answer)")
        show(result)


def _predict_all(
    model: str,
    source: Path,
    output: Path,
    task: Task | None,
    fields: list[str],
    parameters: dict[str, Any],
    batch_size: int,
) -> None:
    if output.exists():
        raise LongformerError(f"{output} exists already: choose another name or delete it")
    named = dict(each.partition("=")[::2] for each in fields)
    with open_model(model) as found:
        folder = model_folder(found.folder)
        ability = task or _task_of(folder)
        asked, known = example_of(folder, ability), ABILITIES[ability].parameters
        if unknown := [name for name in named if name not in asked or not named[name]]:
            raise LongformerError(f"--field {unknown[0]}: write {' or '.join(f'{name}=FIELD' for name in asked)}")
        given = {name: value for name, value in parameters.items() if name in known and value is not None}
        counts = predict_files(folder, ability, source, output, fields=named, parameters=given, batch_size=batch_size)
    print(f"{output}: {counts.records:,} records")
    if counts.cut:
        print(f"texts with more tokens than are read, whose rest was left out: {counts.cut:,}")
    if counts.failed:
        print(f"records without an answer, each of which says why under `error`: {counts.failed:,}", file=sys.stderr)
        raise typer.Exit(1)


def _task_of(folder: Path) -> str:
    try:
        return task_of(folder)
    except LongformerError as error:
        if not (folder / CONFIG_FILE).is_file():
            raise
        raise LongformerError(f"{error}, or choose with --task what it is to do") from error


def check_options(chosen: Task, question: str | None, choices: list[str] | None) -> None:
    """Raises LongformerError where a question or choices are missing, or given to a task that has none."""
    if chosen in (Task.answer, Task.multi_hop, Task.select) and question is None:
        raise LongformerError("give the question with --question")
    asks = (Task.answer, Task.multi_hop, Task.choose, Task.select, Task.classify)
    if chosen not in asks and question is not None:
        raise LongformerError(f"--question is for answers, choices and classes, not for {chosen}")
    if (chosen in (Task.choose, Task.select)) != bool(choices):
        raise LongformerError(
            f"--choice is for choosing, not for {chosen}" if choices else "give the choices with --choice, each its own"
        )


def summary(predictor: Predictor, text: str, *, max_new_tokens: int | None, num_beams: int | None) -> str:
    """Returns a summary, with refused settings as our own error."""
    try:
        return predictor.summarize(text, max_new_tokens=max_new_tokens, num_beams=num_beams)
    except ValueError as error:
        raise LongformerError(str(error)) from error


def show(candidates: Sequence[Candidate | Piece]) -> None:
    """Prints results, one a line."""
    for candidate in candidates:
        print(f"  {candidate.score:.4f}  {candidate.text}")


def text_of(source: str) -> str:
    """Returns the text that an argument gives or names.

    Raises:
        LongformerError: it is empty, or named and cannot be read.
    """
    try:
        if source == "-":
            text = sys.stdin.read()
        else:
            text = Path(source).read_text(encoding="utf-8") if is_file(source) else source
    except (OSError, UnicodeDecodeError) as error:
        raise LongformerError(f"{source} cannot be read as UTF-8 text: {error}") from error
    if not text.strip():
        raise LongformerError("the text is empty")
    return text


def is_file(source: str) -> bool:
    """Returns whether an argument is a path rather than a text.

    Raises:
        LongformerError: it looks like one and nothing is there.
    """
    is_short = 0 < len(source) < 1024 and "\n" not in source
    is_folder = False
    with suppress(OSError):  # longer than a name may be, so it is a text
        if is_short and Path(source).is_file():
            return True
        is_folder = is_short and Path(source).is_dir()
    if is_folder:
        raise LongformerError(f"{source} is a folder: give a file of it, or the text itself (- reads it here)")
    if is_short and " " not in source and Path(source).suffix in (".txt", ".md"):
        raise LongformerError(f"{source} does not exist")
    return False
