"""A trained Longformer or LED put to work on text: masked words, classes, labels, clusters of mentions, choices,
candidates, answers and summaries.

The tokenizer is the folder's own. Global attention is what each head has by default: the first token to classify, the
question to answer, the choices to choose from, none for masked words, labels and clusters; an LED's first token to
summarize. To select a candidate, the query and all candidates are global.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer

from longformer import models
from longformer.costs.encoder import shape_of
from longformer.errors import LongformerError
from longformer.evaluation.entities import entities, has_entities
from longformer.inference.answering import (
    SPANS_KEPT,
    AnswerReading,
    context_windows,
    merged,
    probabilities,
    text_of,
    window_spans,
)
from longformer.inference.choosing import Around, choice_inputs, choice_values
from longformer.inference.classification import IDS, Inputs, Reading, TextReading, batches_by_length, label_values
from longformer.inference.coreference import DocumentReading, document_clusters
from longformer.inference.hops import VERDICTS, HopMarks, HopReading, hop_answers, hop_inputs
from longformer.inference.labelling import Part, word_parts, word_values
from longformer.inference.queries import longest_query, normalized
from longformer.inference.selecting import CandidateReading, Marks, candidate_inputs, candidate_values
from longformer.inference.texts import Tokens, check_choices, check_text
from longformer.inference.words import sentence_lengths, words_of
from longformer.interop.checkpoint_files import read_tensors
from longformer.interop.model_folder import read_config
from longformer.interop.special_text import as_tokens
from longformer.interop.tokenizer import for_words, open_content, read_tokenizer, tokenizer_content
from longformer.models.coreference.config import CoreferenceConfig


class Task(NamedTuple):
    """What does a task."""

    architectures: tuple[str, ...]
    """Classes of models, one of each family that does it."""
    trained_part: str
    """Stands in the names of the tensors without which the model has not learnt the task."""


TASKS = {
    "fill-mask": Task(("LongformerForMaskedLM",), "lm_head."),
    "classify": Task(("LongformerForSequenceClassification",), "classifier."),
    "label": Task(("LongformerForTokenClassification",), "classifier."),
    "cluster": Task(("LongformerForCoreference",), "coreference."),
    "choose": Task(("LongformerForMultipleChoice",), "classifier."),
    "select": Task(("LongformerForCandidateSelection",), "candidate_score."),
    "multi-hop": Task(("LongformerForMultiHopAnswers",), "multi_hop."),
    "answer": Task(("LongformerForQuestionAnswering", "LEDForQuestionAnswering"), "qa_outputs."),
    "summarize": Task(("LEDForConditionalGeneration",), "decoder."),
}
MASKS = ("<mask>", "[MASK]")


@dataclass(frozen=True)
class Candidate:
    """One of several results."""

    text: str
    score: float
    """Its probability; of a regression, the value itself."""


@dataclass(frozen=True)
class Label:
    """What a token, a word or an entity of a text was found to be."""

    text: str
    start: int
    """Where it begins in the text, in characters."""
    label: str
    score: float
    """Its probability."""


@dataclass(frozen=True)
class Mention:
    """A piece of a text that is of the same thing as the others of its cluster."""

    text: str
    start: int
    """Where it begins and ends in the text, in characters."""
    end: int


@dataclass(frozen=True)
class Piece:
    """A piece of a text that may answer a question."""

    text: str
    start: int
    """Where it begins and ends in the text, in characters."""
    end: int
    score: float
    """Its probability beside the others and no answer."""


class Answers(NamedTuple):
    """How a question is answered."""

    answer: str
    """Empty where the model takes the text to hold none."""
    no_answer: float
    """The probability of that."""
    answers: list[Piece]
    """The best pieces."""


class Fact(NamedTuple):
    """A sentence that an answer rests on."""

    title: str
    """Of its paragraph."""
    sentence: int
    """Its number there, 0 the first."""
    text: str


class MultiHopAnswer(NamedTuple):
    """How a question is answered from several paragraphs."""

    answer: str
    """`yes`, `no`, or a piece of the paragraphs."""
    score: float
    """Its probability."""
    facts: list[Fact]
    """What it rests on: sentences of two paragraphs."""


class Predictor:
    """A model and its tokenizer; what it is asked changes neither of them.

    A text that is none, that is empty or of which the tokenizer makes nothing is refused with a LongformerError by all
    methods, as is a question that leaves no room for a text.

    Args:
        model: of the class that does the task.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def load(cls, directory: Path, task: str) -> Self:
        """Reads a model folder for one of TASKS.

        Raises:
            LongformerError: a file is missing or damaged, or the folder holds a model of another family or one that
                has not learnt the task.
        """
        architectures, trained_part = TASKS[task]
        is_led = read_config(directory).get("model_type") == "led"
        if not any(trained_part in name for name in read_tensors(directory, device="meta")):
            raise LongformerError(f"{directory} has no weights for {task} ({trained_part}*): train it for that first")
        # A model of the other family is refused by the class that reads it.
        architecture = next((name for name in architectures if name.startswith("LED") == is_led), architectures[0])
        tokenizer = read_tokenizer(directory)
        if task == "fill-mask":
            masks = [mask for mask in MASKS if tokenizer.token_to_id(mask) is not None]
            tokenizer = open_content(as_tokens(tokenizer, masks, str(directory)).to_str())
        model = getattr(models, architecture).from_pretrained(directory)
        if task in ("select", "multi-hop", "cluster") or (task == "label" and Reading.is_kept_in(model.config)):
            tokenizer = open_content(for_words(tokenizer_content(directory)))
        return cls(model, tokenizer)

    @torch.no_grad()
    def fill_mask(self, text: str, *, top: int) -> list[list[Candidate]]:
        """Returns the most probable tokens for every mask of a text, the best first.

        Raises:
            LongformerError: there is no mask in the text, or one beyond what the model reads.
        """
        tokens = self._encode(text)
        masks = [number for number in map(self.tokenizer.token_to_id, MASKS) if number is not None]
        hidden = [place for place, token in enumerate(tokens.ids) if token in masks]
        if not hidden:
            raise LongformerError(f"the text holds no mask: write {MASKS[0]} (of a BERT: {MASKS[1]}) for a hidden word")
        ids = tokens.shortened(self._positions, part=0, names=("text",)).batch()
        positions = torch.isin(ids[0], torch.tensor(masks)).nonzero()[:, 0]
        if len(positions) < len(hidden):
            raise LongformerError(
                f"a mask is token {hidden[len(positions)] + 1:,} of the text, the model reads {self._positions:,}: "
                "give the part around it"
            )
        found = self.model(ids).logits[0, positions].softmax(-1).topk(min(top, self.model.config.vocab_size))
        return [
            [Candidate(self.tokenizer.decode([token], False).strip(), score) for score, token in zip(*row, strict=True)]
            for row in zip(found.values.tolist(), found.indices.tolist(), strict=True)
        ]

    def classify(self, text: str, question: str | None = None) -> list[Candidate]:
        """Returns all classes, the most probable first; where several may hold, each has a probability of its own.

        What is read of a longer text is what the model was trained and evaluated with; see `TextReading`. A model that
        tells of none, which was trained elsewhere, may be given a question or not.
        """
        (found,) = self.classify_all([text], [question], batch_size=1)
        if isinstance(found, LongformerError):
            raise found
        return found

    def classify_all(
        self, texts: Sequence[Any], questions: Sequence[Any], *, batch_size: int
    ) -> list[list[Candidate] | LongformerError]:
        """Returns the classes of every text as `classify` does, or why a text has none.

        Args:
            texts: any number; what is no text has none.
            questions: one for each, None where there is none.
            batch_size: texts, or windows of them, of similar length that are read at a time.
        """
        parts: list[tuple[int, Inputs]] = []
        found: list[list[Candidate] | LongformerError] = [[] for _ in texts]
        for number, (text, question) in enumerate(zip(texts, questions, strict=True)):
            try:
                parts += [(number, part) for part in self._parts(text, question)]
            except LongformerError as error:
                found[number] = error
        config = self.model.config
        problem = config.problem_type or ("single_label_classification" if config.num_labels > 1 else "regression")
        values: dict[int, list[torch.Tensor]] = {}
        for batch in batches_by_length(parts, batch_size, length=lambda part: len(part[1][IDS])):
            read = label_values(
                self.model, [part for _, part in batch], problem_type=problem, padding=config.pad_token_id
            )
            for (number, _), each in zip(batch, read, strict=True):
                values.setdefault(number, []).append(each)
        for number, of_parts in values.items():
            scores = torch.stack(of_parts).mean(0).tolist()
            candidates = [Candidate(self._class_name(index), score) for index, score in enumerate(scores)]
            found[number] = sorted(candidates, key=lambda candidate: -candidate.score)
        return found

    def _parts(self, text: Any, question: Any) -> list[Inputs]:
        """Returns what a classifier reads of a text, a part at a time."""
        config = self.model.config
        reading = TextReading.of(config, self._positions)
        if reading.question:
            check_text(question, "question")
        elif question is not None and TextReading.is_kept_in(config):
            raise LongformerError("the model has learned from texts without questions: give the text alone")
        names = ("text",) if question is None else ("question", "text")
        tokens, own = self._encode(*([text] if question is None else [question, text]), names=names), len(names) - 1
        if question is not None:
            tokens = tokens.limited(longest_query(reading.length), part=0, name="question")
        places = [place for place, part in enumerate(tokens.parts) if part == own]
        first, behind = places[0], places[-1] + 1
        parts = reading.parts(range(first, behind), len(tokens.ids) - len(places))
        if reading.long_documents != "windows" and len(parts[0]) < len(places):
            tokens.shortened(reading.length, part=own, names=names)  # says how much is left out
        asked = max((place + 1 for place, part in enumerate(tokens.parts) if part == 0), default=0)
        global_tokens = {"first": 1, "question": asked, "none": 0}[reading.global_tokens]
        found: list[Inputs] = []
        for part in parts:
            read = [*range(first), *part, *range(behind, len(tokens.ids))]
            found.append({
                IDS: [tokens.ids[place] for place in read],
                "global_attention_mask": [int(number < global_tokens) for number in range(len(read))],
                "token_type_ids": [min(tokens.types[place], config.type_vocab_size - 1) for place in read],
            })  # fmt: skip
        return found

    def label(self, text: str) -> list[Label]:
        """Returns the most probable class of every word of a text (see `words_of`), in order.

        What is read of a longer text is what the model was trained and evaluated with; see `Reading`. Of a model that
        tells of no reading, which was trained elsewhere, the labels are of tokens.
        """
        (found,) = self.label_all([text], batch_size=1)
        if isinstance(found, LongformerError):
            raise found
        return found

    def label_all(self, texts: Sequence[Any], *, batch_size: int) -> list[list[Label] | LongformerError]:
        """Returns the labels of every text as `label` does, or why a text has none; arguments as in `classify_all`."""
        parts: list[tuple[int, Part]] = []
        places: list[list[tuple[int, int]]] = [[] for _ in texts]
        failed: dict[int, LongformerError] = {}
        for number, text in enumerate(texts):
            try:
                places[number], of_text = self._labelled_parts(text)
                parts += [(number, part) for part in of_text]
            except LongformerError as error:
                failed[number] = error
        found: list[dict[int, Label]] = [{} for _ in texts]
        for batch in batches_by_length(parts, batch_size, length=lambda part: len(part[1].ids)):
            read = word_values(self.model, [part for _, part in batch], padding=self.model.config.pad_token_id)
            for (number, part), values in zip(batch, read, strict=True):
                best = values.max(-1)
                for word, score, index in zip(
                    part.words.tolist(), best.values.tolist(), best.indices.tolist(), strict=True
                ):
                    start, end = places[number][word]
                    found[number][word] = Label(texts[number][start:end], start, self._class_name(index), score)
        return [
            failed.get(number) or [label for _, label in sorted(labels.items())] for number, labels in enumerate(found)
        ]

    def entities(self, text: str, labels: Sequence[Label]) -> list[Label] | None:
        """Returns the entities in a text, given the labels of its words; the score is the mean of theirs.

        None where the labels of the model's classes tell of none; see `has_entities`.
        """
        if not Reading.is_kept_in(self.model.config) or not has_entities(self.model.config.id2label.values()):
            return None
        found = []
        for first, behind, kind in entities([label.label for label in labels]):
            words = labels[first:behind]
            end = words[-1].start + len(words[-1].text)
            score = sum(word.score for word in words) / len(words)
            found.append(Label(text[words[0].start : end], words[0].start, kind, score))
        return found

    def _labelled_parts(self, text: Any) -> tuple[list[tuple[int, int]], list[Part]]:
        """Returns where the words of a text begin and end, and what is read of it, a part at a time."""
        if not Reading.is_kept_in(self.model.config):
            read = self._read(text)
            own = np.flatnonzero([part is not None for part in read.parts])
            return [read.offsets[place] for place in own], [Part(list(read.ids), np.arange(len(own)), own)]
        words, encoding, own = self._words(text)
        ids, word_ids = encoding.ids, encoding.word_ids  # each time they are asked for they are made anew
        numbers, firsts = np.unique([word_ids[place] for place in own], return_index=True)
        reading = Reading.of(self.model.config, self._positions)
        parts = word_parts(
            reading,
            [ids[place] for place in own],
            firsts,
            before=ids[: own[0]],
            after=ids[own[-1] + 1 :],
        )
        if reading.long_documents != "windows" and len(parts[0].ids) < len(ids):
            Tokens.of(encoding).shortened(reading.length, part=0, names=("text",))  # says how much is left out
        return [words[number] for number in numbers], parts

    def cluster(self, text: str) -> list[list[Mention]]:
        """Returns the mentions in a text that are of the same thing, a list of each thing, in the order of the text.

        Words and sentences are those of `words_of` and `sentence_lengths`. Who speaks is not known. What is read of a
        longer text is what the model was trained and evaluated with; see `DocumentReading`.
        """
        words, encoding, own = self._words(text)
        reading = DocumentReading.of(self.model.config, self._positions)
        ids, word_ids = encoding.ids, encoding.word_ids
        if reading.long_documents == "refuse" and len(ids) > reading.length:
            raise LongformerError(
                f"the text has {len(ids):,} tokens, the model has learned to read {reading.length:,}: give it in parts"
            )
        own_head = CoreferenceConfig.of(self.model.config)
        segments = reading.segments(begin=ids[0], end=ids[-1], genres=own_head.genres)
        document = {
            "ids": [ids[place] for place in own],
            "pieces": np.bincount([word_ids[place] for place in own], minlength=len(words)),
            "sentences": sentence_lengths(text, words),
            "speakers": [],
            "genre": "",
            "clusters": [],
        }
        (found,) = document_clusters(
            self.model,
            [segments.arrays(document)],
            singletons=own_head.singletons,
            padding=self.model.config.pad_token_id,
        )
        places = [[(words[first][0], words[last][1]) for first, last in cluster] for cluster in found]
        return [[Mention(text[start:end], start, end) for start, end in cluster] for cluster in places]

    def _words(self, text: Any) -> tuple[list[tuple[int, int]], Encoding, np.ndarray]:
        """Returns where the words of a text begin and end, their tokens, and the places of those that are of words."""
        check_text(text, "text")
        words = words_of(text)
        encoding = self.tokenizer.encode([text[start:end] for start, end in words], is_pretokenized=True)
        own = np.flatnonzero([word is not None for word in encoding.word_ids])
        if not len(own):
            raise LongformerError("the text holds nothing but characters that the tokenizer leaves out")
        return words, encoding, own

    def choose(self, text: str, choices: Sequence[str], *, question: str = "") -> list[Candidate]:
        """Returns how probable each choice is, in their order.

        Args:
            text: what is asked about; or the question, where it is asked about nothing.
            choices: what may follow the text, or answer the question.
            question: asked about the text.

        What is read of a longer text is what the model was trained and evaluated with; see `Reading`.
        """
        check_choices(choices)
        beside = [f"{question} {choice}" if question else choice for choice in choices]
        of_choices = [_own(self._encode(each, names=(f"choice {place}",))) for place, each in enumerate(beside, 1)]
        tokens = self._encode(text)
        own = _own(tokens)
        reading = Reading.of(self.model.config, self._positions)
        around = Around.of(self.tokenizer, types=self.model.config.type_vocab_size)
        parts = choice_inputs(reading, own, of_choices, around)
        if reading.long_documents != "windows":
            room = reading.length - around.beside(of_choices)
            # Says how much is left out.
            tokens.shortened(room + len(tokens.ids) - len(own), part=0, names=("text",))
        padding = self.model.config.pad_token_id
        values = [choice_values(self.model, [part], padding=padding)[0] for part in parts]
        scores = np.mean(values, axis=0).tolist()
        return [Candidate(choice, score) for choice, score in zip(choices, scores, strict=True)]

    def select(self, query: str, candidates: Sequence[str], supports: Sequence[str]) -> list[Candidate]:
        """Returns how probable each candidate is to answer a query about documents, in their order.

        What is read of longer documents is what the model was trained and evaluated with; see `CandidateReading`.

        Args:
            query: a relation and what is asked about, such as `country sms braunschweig`.
            candidates: two or more.
            supports: the documents, one or more.
        """
        check_text(query, "query")
        check_choices(candidates, "candidate")
        check_choices(supports, "support", least=1)
        tokens = [self._lines(texts) for texts in ([query], candidates, supports)]
        if not any(map(len, tokens[2])):
            raise LongformerError("the supports hold nothing but characters that the tokenizer leaves out")
        config = self.model.config
        reading, padding = CandidateReading.of(config, self._positions), config.pad_token_id
        marks = Marks.of(self.tokenizer)
        inputs = candidate_inputs(reading, tokens[0][0], tokens[1], tokens[2], marks=marks, padding=padding)
        (scores,) = candidate_values(self.model, [inputs], padding=padding)
        return [Candidate(candidate, score) for candidate, score in zip(candidates, scores, strict=True)]

    def _line(self, line: str) -> Encoding:
        """Returns a line as it is read beside others."""
        return self.tokenizer.encode([line], is_pretokenized=True, add_special_tokens=False)

    def _lines(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the tokens of each text, one line as it is read beside others."""
        lines = [normalized(text) for text in texts]
        encoding = self.tokenizer.encode(lines, is_pretokenized=True, add_special_tokens=False)
        words = np.array(encoding.word_ids, dtype=np.int64)
        ids = np.array(encoding.ids, dtype=np.int64)
        return [ids[words == number] for number in range(len(lines))]

    def answer(self, question: str, text: str, *, top: int) -> Answers:
        """Returns the most probable answers in a text, the best first; each is a piece of the text.

        There are at most `top`, and fewer where the text has not so many pieces. What is read of a longer text is what
        the model was trained and evaluated with; see `AnswerReading`. The decoder of an LED reads the question and the
        text too, moved on by a token as when it was trained.
        """
        tokens = self._encode(question, text, names=("question", "text"))
        config = self.model.config
        places = [place for place, part in enumerate(tokens.parts) if part == 1]
        asked = [number for number, part in zip(tokens.ids, tokens.parts, strict=True) if part == 0]
        offsets = [tokens.offsets[place] for place in places]
        reading = AnswerReading.of(config, self._positions)
        around = Around.of(self.tokenizer, types=getattr(config, "type_vocab_size", 1))
        windows = context_windows(reading, asked, [tokens.ids[place] for place in places], around)
        if reading.long_documents != "windows" and windows[0].tokens < len(places):
            tokens.shortened(reading.length, part=1, names=("question", "text"))  # says how much is left out
        padding, longest = config.pad_token_id, reading.longest_answer
        read = [window_spans(self.model, [window], longest=longest, padding=padding)[0] for window in windows]
        best = merged((span for found in read for span in found.beside_none()), count=SPANS_KEPT)
        none, scores = probabilities(best)
        pieces = [
            (*text_of(text, offsets, span.first, span.last), score) for span, score in zip(best, scores, strict=True)
        ]
        answers = [Piece(piece, start, start + len(piece), score) for piece, start, score in pieces if piece]
        return Answers(reading.given(answers[0].text if answers else "", none), none, answers[:top])

    def multi_hop(self, question: str, paragraphs: Sequence[str]) -> MultiHopAnswer:
        """Returns the answer to a question from several paragraphs, and the sentences that it rests on.

        Args:
            question: what is asked.
            paragraphs: the title of each in its first line, and its sentences in those that follow.
        """
        check_text(question, "question")
        check_choices(paragraphs, "paragraph", least=1)
        lines = [paragraph.strip().split("\n") for paragraph in paragraphs]
        for number, each in enumerate(lines, start=1):
            if len(each) < 2:
                raise LongformerError(f"paragraph {number} has one line: give its title, and below it its sentences")
        marks, config = HopMarks.of(self.tokenizer), self.model.config
        reading = HopReading.of(config, self._positions)
        encoded = [[self._line(line) for line in each] for each in lines]
        asked = self.tokenizer.encode(question, add_special_tokens=False).ids
        inputs = hop_inputs(reading, asked, [[line.ids for line in each] for each in encoded], marks)
        (found,) = hop_answers(self.model, [inputs], longest=reading.longest_answer, padding=config.pad_token_id)
        answer = VERDICTS[found.kind - 1] if found.kind else ""
        if not found.kind and found.line is not None:
            number, place = found.line.paragraph, found.line.sentence + 1
            answer, _ = text_of(lines[number][place], encoded[number][place].offsets, found.first, found.last)
        facts = [Fact(lines[number][0], place, lines[number][place + 1]) for number, place in found.facts]
        return MultiHopAnswer(answer, found.score, facts)

    def summarize(self, text: str, *, query: str = "", **settings: Any) -> str:
        """Returns what an LED writes about a text, or about a text with regard to a query; `settings` are those of
        `generate`. The first token and the query are global; of the query `longest_query` tokens are read."""
        if query:
            names = ("query", "text")
            tokens = self._encode(query, text, names=names)
            asked = tokens.limited(longest_query(self._positions), part=0, name=names[0])
            read = asked.shortened(self._positions, part=1, names=names)
        else:
            read = self._read(text)
        is_global = torch.tensor([[bool(query) and part == 0 for part in read.parts]]).long()
        is_global[:, 0] = 1
        written = self.model.generate(read.batch(), global_attention_mask=is_global, **settings)
        return self.tokenizer.decode(written[0].tolist()).strip()

    def _class_name(self, index: int) -> str:
        return self.model.config.other.get("id2label", {}).get(str(index), str(index))

    @property
    def _positions(self) -> int:
        """How many tokens the model reads."""
        positions = shape_of(self.model.config).positions
        if isinstance(self.model, models.LEDForQuestionAnswering):
            return min(positions, self.model.config.max_decoder_position_embeddings)
        return positions

    def _read(self, *texts: str, names: Sequence[str] = ("text",), shortened: int = 0) -> Tokens:
        """Returns one or two texts as the model reads them; of `shortened`, 0 or 1, the end may be left out."""
        return self._encode(*texts, names=names).shortened(self._positions, part=shortened, names=names)

    def _encode(self, *texts: str, names: Sequence[str] = ("text",)) -> Tokens:
        """Returns one or two texts, of any length, as tokens."""
        for text, name in zip(texts, names, strict=True):
            check_text(text, name)
        tokens = Tokens.of(self.tokenizer.encode(texts[0], texts[1] if len(texts) > 1 else None))
        for part, name in enumerate(names):
            if part not in tokens.parts:
                raise LongformerError(f"the {name} holds nothing but characters that the tokenizer leaves out")
        return tokens


def _own(tokens: Tokens) -> list[int]:
    """Returns the tokens of a text without special ones."""
    return [number for number, part in zip(tokens.ids, tokens.parts, strict=True) if part is not None]


def task_of(directory: Path) -> str:
    """Returns the task that the model of a folder does by its architecture.

    Raises:
        LongformerError: it has none of them.
    """
    architecture = next(iter(read_config(directory).get("architectures") or []), "none")
    for name, task in TASKS.items():
        if architecture in task.architectures:
            return name
    raise LongformerError(
        f"{directory} names the architecture {architecture}, which does none of {', '.join(TASKS)} by itself: "
        "write the class that its weights are of into architectures of its config.json"
    )
