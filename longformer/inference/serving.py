"""What any model folder can be asked, one record at a time: behind the served model, and for all tasks alike.

A folder answers by what it holds: a Longformer or an LED by its architecture, a character model by its vocabulary.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from longformer.errors import LongformerError
from longformer.inference.characters import VOCABULARY_FILE, CharacterPredictor
from longformer.inference.classification import TextReading
from longformer.inference.predictor import MASKS, Candidate, Label, Predictor, task_of
from longformer.inference.texts import check_choices, check_text, is_absent
from longformer.interop.checkpoint_files import GENERATION_FILE
from longformer.interop.model_folder import CONFIG_FILE, read_config
from longformer.interop.tokenizer import FILES, read_tokenizer

Record = dict[str, Any]
Answer = Callable[[Record, Record], Record]
"""Turns the fields of a record and the request's parameters into the fields of the result."""

LONGEST_SCORED = 32_768
"""Bytes of the longest text that a character model is given, all of which it scores, and of the longest that it writes;
other models read the beginning of a long text only."""
LONGEST_CLUSTERED = 262_144
"""Characters of the longest text whose mentions are clustered, all of which is read at a time."""
MOST_BEAMS = 64
"""Summaries followed at the same time; their number is a request's to choose, and their memory the server's."""
_CHARACTERS = "characters"
_SENTENCE = "The quick brown fox jumps over the lazy dog."
_QUESTION = "What does the fox do?"


def _fill_mask(predictor: Predictor, record: Record, parameters: Record) -> Record:
    masks = predictor.fill_mask(record["text"], top=_top(parameters))
    return {"masks": [list(map(asdict, candidates)) for candidates in masks]}


def _classify(predictor: Predictor, record: Record, parameters: Record) -> Record:
    return _classes(predictor, record, predictor.classify(record["text"], record.get("question")))


def _classify_all(predictor: Predictor, records: Sequence[Record], batch_size: int) -> list[Any]:
    texts, questions = ([record.get(name) for record in records] for name in ("text", "question"))
    return predictor.classify_all(texts, questions, batch_size=batch_size)


def _classes(predictor: Predictor, record: Record, classes: list[Candidate]) -> Record:
    return {"classes": list(map(asdict, classes))}


def _label(predictor: Predictor, record: Record, parameters: Record) -> Record:
    return _labels(predictor, record, predictor.label(record["text"]))


def _label_all(predictor: Predictor, records: Sequence[Record], batch_size: int) -> list[Any]:
    return predictor.label_all([record.get("text") for record in records], batch_size=batch_size)


def _labels(predictor: Predictor, record: Record, labels: list[Label]) -> Record:
    answer = {"labels": list(map(asdict, labels))}
    if (entities := predictor.entities(record["text"], labels)) is not None:
        answer["entities"] = list(map(asdict, entities))
    return answer


def _cluster(predictor: Predictor, record: Record, parameters: Record) -> Record:
    text = record["text"]
    if len(text) > LONGEST_CLUSTERED:
        raise LongformerError(
            f"the text has {len(text):,} characters, at most {LONGEST_CLUSTERED:,} are read at a time: give it in parts"
        )
    found = predictor.cluster(text)
    return {"clusters": [list(map(asdict, cluster)) for cluster in found]}


def _choose(predictor: Predictor, record: Record, parameters: Record) -> Record:
    context, question = ("" if is_absent(record.get(name)) else record[name] for name in ("context", "question"))
    if not context and not question:
        raise LongformerError("the context and the question are missing: give one of them at least")
    found = predictor.choose(context or question, record["choices"], question=question if context else "")
    best = max(found, key=lambda candidate: candidate.score)
    return {"choice": best.text, "scores": [candidate.score for candidate in found]}


def _select(predictor: Predictor, record: Record, parameters: Record) -> Record:
    found = predictor.select(*(record[name] for name in ("query", "candidates", "supports")))
    best = max(found, key=lambda candidate: candidate.score)
    return {"candidate": best.text, "scores": [candidate.score for candidate in found]}


def _answer(predictor: Predictor, record: Record, parameters: Record) -> Record:
    found = predictor.answer(record["question"], record["context"], top=_top(parameters))
    return {**found._asdict(), "answers": list(map(asdict, found.answers))}


def _multi_hop(predictor: Predictor, record: Record, parameters: Record) -> Record:
    found = predictor.multi_hop(record["question"], record["paragraphs"])
    return {**found._asdict(), "facts": [fact._asdict() for fact in found.facts]}


def _summarize(predictor: Predictor, record: Record, parameters: Record) -> Record:
    settings = {name: value for name, value in parameters.items() if value}
    _check_limit("num_beams", settings.get("num_beams", 1), least=1, most=MOST_BEAMS)
    return {"summary": predictor.summarize(record["text"], **settings)}


def _continue(predictor: CharacterPredictor, record: Record, parameters: Record, **settings: Any) -> Record:
    text, characters = record["text"].encode(), parameters.get("new_characters", 0)
    _check_limit("new_characters", characters, least=0, most=LONGEST_SCORED)
    if len(text) > LONGEST_SCORED:
        raise LongformerError(
            f"the text has {len(text):,} bytes, at most {LONGEST_SCORED:,} are scored: give it in parts"
        )
    score = predictor.score(text, **settings)
    written = predictor.continuation(
        text,
        characters=characters,
        temperature=parameters.get("temperature", 1.0),
        seed=parameters.get("seed", 0),
    )
    return {"bits_per_character": score.bits, "continuation": b"".join(written).decode(errors="replace")}


def _top(parameters: Record) -> int:
    top = int(parameters.get("top", 5))
    if top < 1:
        raise LongformerError(f"top must be at least 1, got {top}")
    return top


def _check_limit(name: str, value: int, *, least: int, most: int) -> None:
    if not least <= value <= most:
        raise LongformerError(f"{name} must be from {least} to {most:,}, got {value:,}")


@dataclass(frozen=True)
class Ability:
    """One kind of question that a folder can answer."""

    answer: Callable[..., Record]
    """Called with a predictor, a record, the request's parameters and the settings of `open_model`."""
    example: Record
    """A record that every model of the kind can answer; [MASK] stands for the model's own mask."""
    parameters: Record = field(default_factory=dict)
    """Those of a request, with their defaults; 0 leaves a setting to the model."""
    quick: Record = field(default_factory=dict)
    """Parameters with which the example is answered fast."""
    together: tuple[Callable[..., list[Any]], Callable[..., Record]] | None = None
    """What reads many records in batches of similar length, called with a predictor, the records and the batch size;
    and what turns what it finds for one into the result."""
    optional: tuple[str, ...] = ()
    """Fields of a record that may be absent."""
    least: Record = field(default_factory=dict)
    """Of how many texts a list consists at least, where they are not two."""

    def checked_answer(
        self, predictor: Predictor | CharacterPredictor, record: Record, parameters: Record, **settings: Any
    ) -> Record:
        """Returns the fields of the result; LongformerError or ValueError where there is none."""
        for name, example in self.example.items():
            if isinstance(example, list):
                check_choices(record.get(name), name.removesuffix("s"), least=self.least.get(name, 2))
            elif name not in self.optional or not is_absent(record.get(name)):
                check_text(record.get(name), name)
        return self.answer(predictor, record, parameters, **settings)


ABILITIES = {
    "fill-mask": Ability(_fill_mask, {"text": _SENTENCE.replace("fox", "[MASK]")}, {"top": 5}),
    "classify": Ability(_classify, {"text": _SENTENCE}, together=(_classify_all, _classes)),
    "label": Ability(_label, {"text": _SENTENCE}, together=(_label_all, _labels)),
    "cluster": Ability(_cluster, {"text": _SENTENCE}),
    "choose": Ability(
        _choose,
        {"context": _SENTENCE, "question": _QUESTION, "choices": ["It jumps.", "It sleeps."]},
        optional=("context", "question"),
    ),
    "select": Ability(
        _select,
        {"query": "jumps over", "candidates": ["the fox", "the dog"], "supports": [_SENTENCE]},
        least={"supports": 1},
    ),
    "multi-hop": Ability(
        _multi_hop,
        {"question": _QUESTION, "paragraphs": [f"The fox\n{_SENTENCE}", "The dog\nIt sleeps."]},
        least={"paragraphs": 1},
    ),
    "answer": Ability(_answer, {"question": _QUESTION, "context": _SENTENCE}, {"top": 5}),
    "summarize": Ability(
        _summarize, {"text": _SENTENCE}, {"max_new_tokens": 0, "num_beams": 0}, quick={"max_new_tokens": 2}
    ),
    # text8 knows small letters and spaces only.
    _CHARACTERS: Ability(
        _continue, {"text": _SENTENCE.lower().rstrip(".")}, {"new_characters": 0, "temperature": 1.0, "seed": 0}
    ),
}


def ability_of(folder: Path) -> str:
    """Returns the name in ABILITIES of what the model of a folder can be asked.

    Raises:
        LongformerError: the folder holds no model, or one that does nothing of it.
    """
    if (folder / VOCABULARY_FILE).is_file():
        return _CHARACTERS
    if not (folder / CONFIG_FILE).is_file():
        raise LongformerError(f"{folder} is neither a run directory (no identity.json) nor a model (no {CONFIG_FILE})")
    return task_of(folder)


def open_model(folder: Path, ability: str, **settings: Any) -> Answer:
    """Returns what answers one record after the other with the model of a folder, each as if it were the only one.

    It raises LongformerError or ValueError for a record or parameters that cannot be answered.

    Args:
        folder: of the model.
        ability: a name in ABILITIES.
        settings: of a character model the keywords of `CharacterPredictor.score`; of others none.

    Raises:
        LongformerError: the model is missing or damaged, or has not learned this.
    """
    predictor = _predictor(folder, ability)
    kind = ABILITIES[ability]

    return lambda record, parameters: kind.checked_answer(predictor, record, parameters, **settings)


def open_for_many(folder: Path, ability: str) -> Callable[[Sequence[Record], Record, int], list[Record]]:
    """Returns what answers many records, called with them, the parameters, and how many are read at a time.

    A record that cannot be answered says why under `error`; all others are answered as by `open_model`. Texts are
    classified and labelled together, others one by one.

    The folder, the ability and errors are as in `open_model`.
    """
    predictor = _predictor(folder, ability)
    kind = ABILITIES[ability]

    def answer_all(records: Sequence[Record], parameters: Record, batch_size: int) -> list[Record]:
        if kind.together is not None:
            read_all, result = kind.together
            found = read_all(predictor, records, batch_size)
            return [
                {"error": str(each)} if isinstance(each, LongformerError) else result(predictor, record, each)
                for record, each in zip(records, found, strict=True)
            ]
        return [answer(record, parameters) for record in records]

    def answer(record: Record, parameters: Record) -> Record:
        try:
            return kind.checked_answer(predictor, record, parameters)
        except (LongformerError, ValueError) as error:
            return {"error": str(error)}

    return answer_all


def example_of(folder: Path, ability: str) -> Record:
    """Returns a record that the model of a folder can answer."""
    example = ABILITIES[ability].example
    if ability == "classify" and TextReading.has_question(read_config(folder)):
        return {"question": _QUESTION, **example}
    if ability != "fill-mask":
        return example
    tokenizer = read_tokenizer(folder)
    mask = next((mask for mask in MASKS if tokenizer.token_to_id(mask) is not None), MASKS[0])
    return {"text": example["text"].replace("[MASK]", mask)}


def rewrite_model(folder: Path, ability: str, target: Path) -> None:
    """Reads the model of a folder and writes it whole into a new one, with all that it needs to answer.

    A Longformer or an LED is written as Hugging Face lays it out, with its tokenizer.

    Raises:
        LongformerError: the model is damaged.
    """
    _predictor(folder, ability).model.save_pretrained(target)
    for name in (*FILES, GENERATION_FILE, VOCABULARY_FILE):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)


def _predictor(folder: Path, ability: str) -> Predictor | CharacterPredictor:
    return CharacterPredictor.load(folder) if ability == _CHARACTERS else Predictor.load(folder, ability)
