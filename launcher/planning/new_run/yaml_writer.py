"""A run file as YAML that says beside each choice why it was made."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import yaml

from data_pipeline.prepare.survey import BYTES_PER_TOKEN, COUNTED, LABELS_COUNTED, Survey
from launcher.tasks.recipes import COVERED, EPOCHS, TRAINED, Content, RecipeRequest, covered, is_uneven

_REASONS = {
    "model.source": "relative to the working directory, as every path here",
    "model.published": "whose shape `longformer plan` takes while the folder is not there",
    "model.max_length": "tokens that the model will read; positions repeat",
    "model.window": "neighbours that a token sees, both sides together",
    "data.directory": "made by `longformer train`, and used again",
    "data.sources.0.weight": "add corpora, each with its share of the rows",
    "data.sources.0.damaged_allowed": "twice what was found; none where that is much",
    "data.damaged_allowed": "twice what was found; none where that is much",
    "data.masked": "share of the tokens to predict, as published",
    "data.target_length": f"tokens of a summary; holds {COVERED} % of them whole",
    "data.bucket_batches": "documents of similar length together",
    "data.layout": "hyperpartisan = the published splits, which leak",
    "data.problem": "single_label, multi_label or regression",
    "data.class_weights": "balanced = rare classes count as much as frequent ones",
    "data.answers": "texts, or objects with text and answer_start; an empty list = the context has none",
    "data.longest_answer": "tokens of the longest answer that is given",
    "data.words": "field of the words, or the number of their column; -1 is the last",
    "training.zero_stage": "shards the optimizer and gradients over the ranks; 3 also the weights",
    "training.activation_checkpointing": "true computes layers again instead of keeping them",
    "evaluation.limit_documents": "of each split; null = all",
    "evaluation.limit_tokens": "of each split; null = all",
    "evaluation.min_length": f"{COVERED} % of the summaries are longer",
    "phases.0.batch_size": "over all ranks; as published, or less where documents are few, for updates enough",
    "phases.0.micro_batch_size": "per rank and forward pass: what fits into its memory",
    "phases.0.epochs": "at most: it ends sooner where validation gets no better",
    "phases.0.best.patience": "evaluations without a better one until the phase ends; the best step is kept",
}
_CLASSES = 10
"""Classes that are named."""
_NO_LANGUAGE = {"und": "unknown", "zxx": "none"}


def run_file_text(content: Content, request: RecipeRequest) -> str:
    """Returns the run file: what was seen of the data, then every choice with its reason."""
    # What names of fields and classes hold must not end a comment.
    header = [f"# {line}".replace("\n", " ") for line in _header(content, request)]
    return "\n".join([*header, *_lines(content)]) + "\n"


def _header(content: Content, request: RecipeRequest) -> Iterator[str]:
    survey, machine = request.survey, request.machine
    half, most, longest = (int(np.percentile(survey.lengths, share)) for share in (50, COVERED, 100))
    about = "about " if survey.documents > (LABELS_COUNTED if survey.section else COUNTED) else ""
    yield f"Written by `longformer new` from the look of {request.data}:"
    yield f"  {about}{survey.documents:,} documents in {survey.kind}, {_fields(survey.fields)}"
    if survey.splits:
        yield f"  by their names: {', '.join(f'{count:,} for {split}' for split, count in survey.splits.items())}"
    yield f"  tokens of a document: half have at most {half:,}, {COVERED} % at most {most:,}, the longest {longest:,}"
    if len(survey.summary_lengths):
        yield f"  tokens of a summary: half have at most {int(np.median(survey.summary_lengths)):,}"
    if survey.section:
        yield from _labels(survey)
    languages = ", ".join(f"{_NO_LANGUAGE.get(code, code)} {share:.0%}" for code, share in survey.languages)
    yield f"  languages of the documents, guessed: {languages}"
    if survey.damaged:
        yield f"  about {survey.damaged:,} lines cannot be read and are left out"
    if request.start.tokenizer is None:
        yield f"{request.start.source} is not there yet: tokens are estimated, {BYTES_PER_TOKEN} bytes each."
    yield f"Sizes are for {request.ranks} x {machine.name}, {machine.memory / 1e9:.0f} GB each, by `longformer plan`."
    asked, given = covered(survey.lengths), content["phases"][-1]["sequence_length"]
    if given < asked:
        yield f"Rows of {given:,} tokens cut or part longer documents: more does not fit, or is not published."
    longer = float(np.mean(survey.lengths + 2 > given))
    if survey.section and longer:
        yield f"{longer:.0%} of the texts have more than {given:,} tokens: data.long_documents says what is read."
    read = f"{survey.splits['train']:,} for training" if survey.splits else f"{TRAINED:.0%} that are not held out"
    times = content["phases"][0].get("epochs", EPOCHS)
    yield f"Phases read the {read} up to {times} times; learning rates are published."


def _labels(survey: Survey) -> Iterator[str]:
    """Yields what was seen of the labels."""
    if not survey.classes:
        if "problem" in survey.section:
            yield "  labels: numbers"
        return
    total = sum(survey.classes.values())
    ordered = sorted(survey.classes, key=lambda name: -survey.classes[name])
    told = [f"{name} {survey.classes[name] / total:.1%}" for name in ordered[:_CLASSES]]
    told += ["..."] * (len(ordered) > _CLASSES)
    yield f"  labels: {total:,} of {len(ordered):,} classes: {', '.join(told)}"
    rarest = ordered[-1]
    if is_uneven(survey.classes):
        yield f"  the rarest, {rarest}, stands there {survey.classes[rarest]:,} times: try data.class_weights: balanced"


def _fields(fields: str) -> str:
    return f"fields {fields}" if "=" in fields else f"as {fields}"


def _lines(value: Mapping[str, Any], path: tuple[str, ...] = (), indent: str = "") -> Iterator[str]:
    for key, item in value.items():
        place = (*path, key)
        if isinstance(item, dict):
            yield f"{indent}{key}:"
            yield from _lines(item, place, f"{indent}  ")
        elif isinstance(item, list) and isinstance(item[0], dict):
            yield f"{indent}{key}:"
            for index, each in enumerate(item):
                first, *others = _lines(each, (*place, str(index)), f"{indent}  ")
                yield f"{indent}- {first.removeprefix(f'{indent}  ')}"
                yield from others
        else:
            written = yaml.safe_dump({key: item}, default_flow_style=True, width=math.inf, allow_unicode=True)
            yield f"{indent}{written.strip()[1:-1]}{_reason(place)}"


def _reason(place: tuple[str, ...]) -> str:
    reason = _REASONS.get(".".join(place))
    return f"  # {reason}" if reason else ""
