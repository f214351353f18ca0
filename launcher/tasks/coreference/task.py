"""The task `coreference`: an encoder made long finds which mentions of a document are of the same thing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from data_pipeline.sampling.clusters import CoreferenceDocument
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.conll import conll_lines
from launcher.runs.run import Run
from launcher.tasks.base import Evaluation, EvaluationRequest, TaskReport
from launcher.tasks.coreference.config import CoreferenceRun
from launcher.tasks.coreference.data import CoreferenceData
from launcher.tasks.label_task import LabelTask
from longformer.evaluation.classification import Scores
from longformer.evaluation.coreference import coreference_scores
from longformer.evaluation.coreference_baselines import english_mentions, matched_clusters, single_clusters
from longformer.evaluation.lengths import SHORT, scores_by_length
from longformer.files import write_atomically
from longformer.inference.coreference import Clusters, DocumentReading, document_clusters
from longformer.models import LongformerForCoreference
from longformer.models.coreference.config import ONTONOTES_GENRES
from longformer.training.objectives import CLUSTERS, Lengths, Objective

HEAD = "coreference"
"""Begins the names of the tensors of the head, and tells of its shape in config.json."""


@dataclass(frozen=True)
class CoreferenceTask(LabelTask[CoreferenceRun, CoreferenceData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    model_class: ClassVar = LongformerForCoreference
    global_tokens: ClassVar[int] = 0

    @property
    def objective(self) -> Objective:
        return CLUSTERS

    @property
    def model_changes(self) -> dict[str, Any]:
        return {HEAD: {**self.config.head.model_dump(), "singletons": self.config.data.singletons}}

    @property
    def conversion(self) -> dict[str, Any]:
        has_same_head = self.data.source_settings().get(HEAD) == self.model_changes[HEAD]
        return super().conversion | ({} if has_same_head else {"without": (HEAD,)})

    def full_lengths(self, index: int) -> list[Lengths]:
        return super().full_lengths(index) * self.config.data.training_segments

    def predictions(self, lengths: Lengths) -> float:
        return lengths.read

    def reading(self, index: int, length: int | None = None) -> DocumentReading:
        section = self.config.data
        length = length or self.config.phases[index].sequence_length
        return DocumentReading(length, section.long_documents, section.overlap)

    def evaluate(self, model: nn.Module, index: int, request: EvaluationRequest) -> Evaluation:
        """Returns the official scores of the clusters, and the clusters found in every document; unless the phase goes
        on, beside `baselines`.

        After a phase, of longer documents also the scores of the same model that reads segments of SHORT tokens.
        """
        documents = self.data.held_out(request.split, limit=self.config.evaluation.limit_documents)
        reading = self.reading(index, request.sequence_length)
        lengths = [len(document.ids) + 2 for document in documents]
        found = self._clusters(model, documents, reading, request)
        scores = self._scores(documents, found) | {
            "texts": len(documents),
            "longer_texts": sum(length > reading.length for length in lengths),
            "sequence_length": reading.length,
        }
        if not request.within_phase:
            scores["baselines"] = self._baselines(documents)

        def of_group(members: Sequence[int]) -> Scores:
            return self._scores([documents[number] for number in members], [found[number] for number in members])

        if by_length := scores_by_length(lengths, of_group):
            scores["by_length"] = by_length
        if request.after_phase and reading.length > SHORT and max(lengths) > SHORT:
            short = self._clusters(model, documents, replace(reading, length=SHORT), request)
            scores["segments_of_512_tokens"] = self._scores(documents, short)
        return Evaluation(scores, [self._line(*each) for each in zip(documents, found, strict=True)])

    def write_table(self, directory: Path, split: str, evaluation: Evaluation) -> Path | None:
        """Writes beside the table what the official scorer reads: the clusters in CoNLL's columns."""
        columns = "".join(
            conll_lines(line["document"], line["part"], line["words"], line["sentences"], line["prediction"])
            for line in evaluation.table
        )
        write_atomically(directory / f"predictions-{split}.conll", columns.encode())
        return super().write_table(directory, split, evaluation)

    def report(self, run: Run) -> TaskReport:
        # Plotting takes seconds to import, which ranks need not.
        from launcher.tasks.coreference.report import report_of

        return report_of(self.config, self.data, run)

    def _clusters(
        self,
        model: Any,
        documents: Sequence[CoreferenceDocument],
        reading: DocumentReading,
        request: EvaluationRequest,
    ) -> list[Clusters]:
        """Returns the clusters found in each document."""
        special = PreparedData.open(self.data.directory).tokenizer.special
        segments = reading.segments(begin=special.begin, end=special.end, genres=ONTONOTES_GENRES)

        def read(part: list[CoreferenceDocument], device: torch.device) -> list[Clusters]:
            laid_out = [segments.arrays(each.as_mapping()) for each in part]
            singletons = self.config.data.singletons
            return document_clusters(model, laid_out, singletons=singletons, padding=special.padding, device=device)

        return self.read_parts(model, documents, read, length=lambda each: len(each.ids), request=request)

    def _baselines(self, documents: Sequence[CoreferenceDocument]) -> dict[str, Scores]:
        mentions = [english_mentions(each.words, each.sentences) for each in documents]
        matched = [matched_clusters(each.words, found) for each, found in zip(documents, mentions, strict=True)]
        return {
            "same_words": self._scores(documents, matched),
            "every_mention_alone": self._scores(documents, [single_clusters(found) for found in mentions]),
        }

    def _scores(self, documents: Sequence[CoreferenceDocument], found: Sequence[Clusters]) -> Scores:
        gold = [[[(first, last) for first, last in cluster] for cluster in each.clusters] for each in documents]
        return coreference_scores(gold, found, singletons=self.config.data.singletons)

    def _line(self, document: CoreferenceDocument, found: Clusters) -> dict[str, Any]:
        return {
            "document": document.name,
            "part": document.part,
            "tokens": len(document.ids) + 2,
            "words": list(document.words),
            "sentences": list(document.sentences),
            "label": [[list(mention) for mention in cluster] for cluster in document.clusters],
            "prediction": [[list(mention) for mention in cluster] for cluster in found],
            "score": round(self._scores([document], [found])["conll_f1"], 4),
        }
