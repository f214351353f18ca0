"""Writes the mentions of LitBank's coreference layer as words with BIO tags, for `task: token_classification`.

    python benchmarks/litbank_mentions.py litbank_conll.tar.xz data/litbank

makes train.jsonl, validation.jsonl and test.jsonl of 80, 10 and 10 books, in the order of their names, with the fields
id, words and labels. Of mentions inside each other the outermost counts.
"""

import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

WORD, MENTIONS = 3, -1
"""Columns."""


def tags(lines: list[list[str]]) -> Iterator[str]:
    """Yields the tag of every word, given the columns of a document's lines."""
    depth, goes_on = 0, False
    for columns in lines:
        depth += columns[MENTIONS].count("(")
        yield f"{'I' if goes_on else 'B'}-MENTION" if depth else "O"
        depth -= columns[MENTIONS].count(")")
        goes_on = depth > 0


def main(archive: str, target: str) -> None:
    """Reads the archive and writes the three files."""
    with tarfile.open(archive) as books:
        names = sorted(name for name in books.getnames() if name.endswith(".conll"))
        documents = []
        for name in names:
            content = books.extractfile(name)
            assert content is not None
            lines = [line.split("\t") for line in content.read().decode().splitlines() if line and line[0] != "#"]
            words = [columns[WORD] for columns in lines]
            documents.append({"id": Path(name).stem, "words": words, "labels": list(tags(lines))})
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    for split, part in {"train": documents[:80], "validation": documents[80:90], "test": documents[90:]}.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in part))
        print(f"{split}: {len(part)} books, {sum(each['labels'].count('B-MENTION') for each in part):,} mentions")


if __name__ == "__main__":
    main(*sys.argv[1:])
