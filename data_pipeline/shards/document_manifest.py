"""manifest.json of prepared documents: what the shards hold, where they came from, and the fingerprint of it all."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.shards.document_shards import ShardRecord
from data_pipeline.shards.stream_manifest import check_fingerprint, damage_explained
from data_pipeline.sources.corpus_types import DOCUMENTS, DRAWN
from data_pipeline.staging import write_file
from data_pipeline.tokenizers.tokenizer import SpecialTokens

FORMAT = "longformer-documents-1"


@dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    """Where the documents came from."""

    path: str
    field: str
    """Where JSON lines and Parquet keep the text, or the layout of a corpus of summaries."""
    files: int
    signature: str
    """SHA-256 over the files' names, sizes and times of change: equal means unchanged."""
    documents: int
    empty_documents: int
    """Left out because they hold no token."""
    damaged_documents: int
    """Left out and named in quarantine.jsonl."""
    kind: str = DOCUMENTS
    """What the texts of a sample are (data_pipeline/sources/corpus_types.py); several are joined by the end token."""


@dataclass(frozen=True, kw_only=True)
class TokenizerRecord:
    """The tokenizer, whose tokenizer.json lies beside the manifest."""

    sha256: str
    vocabulary_size: int
    token_type: str
    """uint16 or uint32."""
    special: SpecialTokens


@dataclass(frozen=True, kw_only=True)
class DocumentManifest:
    """The contents of manifest.json."""

    source: CorpusRecord
    tokenizer: TokenizerRecord
    splits: dict[str, tuple[ShardRecord, ...]]
    split_rule: str = DRAWN

    @property
    def fingerprint(self) -> str:
        """The content address: equal exactly when tokenizer, documents and their order in the shards are equal."""
        content = {
            "format": FORMAT,
            "tokenizer": asdict(self.tokenizer),
            "splits": {
                name: [{**asdict(shard), "text_sha256": None} for shard in shards]
                for name, shards in self.splits.items()
            },
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def save(self, directory: Path) -> None:
        """Write manifest.json, atomically."""
        content = {"format": FORMAT, "fingerprint": self.fingerprint, **asdict(self)}
        write_file(directory / "manifest.json", json.dumps(content, indent=1).encode() + b"\n")

    @classmethod
    def parse(cls, name: str, content: bytes) -> "DocumentManifest":
        """Take apart the content of the manifest that is called `name` in errors.

        Raises:
            DataError: it is damaged, or of data that was not prepared as documents.
        """
        with damage_explained(name):
            values = json.loads(content)
            if values.pop("format") != FORMAT:
                raise DataError(f"{name} is not of documents: make them with longformer data prepare documents")
            fingerprint = values.pop("fingerprint")
            tokenizer = values.pop("tokenizer")
            special = tokenizer.pop("special")
            manifest = cls(
                source=CorpusRecord(**values.pop("source")),
                tokenizer=TokenizerRecord(
                    special=SpecialTokens(**{**special, "others": tuple(special["others"])}), **tokenizer
                ),
                splits={
                    split: tuple(ShardRecord(**shard) for shard in shards)
                    for split, shards in values.pop("splits").items()
                },
                **values,
            )
        check_fingerprint(name, manifest.fingerprint, written=fingerprint)
        return manifest
