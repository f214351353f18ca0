"""Makes what the two small masked-LM runs of docs/how-to/masked-lm.md need: documents, and a short model to begin with.

python benchmarks/masked_lm_corpora.py antibodies MODEL OUTPUT.jsonl   sequences drawn from a RoBERTa of antibodies
python benchmarks/masked_lm_corpora.py articles ENWIK8.xz OUTPUT.jsonl Wikipedia's articles, one a line
python benchmarks/masked_lm_corpora.py model TOKENIZER OUTPUT          an untrained RoBERTa-shaped model
"""

import json
import lzma
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from longformer.interop.convert import convert, copy_files
from longformer.interop.tokenizer import read_tokenizer
from longformer.models import LongformerForMaskedLM
from longformer.models.longformer.config import LongformerConfig

HEAVY_CHAIN = (
    "QVQLVQSGVEVKKPGASVKVSCKASGYTFTNYYMYWVRQAPGQGLEWMGGINPSNGGTNFNEKFKNRV"
    "TLTTDSSTTTAYMELKSLQFDDTAVYYCARRDYRFDMGFDYWGQGTTVTVSS"
)
"""An antibody's heavy chain that all sequences are drawn around."""


@torch.no_grad()
def antibodies(source: Path, folder: Path, *, count: int, rounds: int = 6, seed: int = 0) -> Iterator[str]:
    """Yield sequences drawn from a model of antibodies: a third of the letters hidden and drawn anew, `rounds` times.

    Args:
        source: a RoBERTa in Hugging Face's layout whose letters are tokens.
        folder: where the model is put in a form that we compute with.
        count: how many sequences.
        rounds: the more, the less a sequence has in common with HEAVY_CHAIN.
        seed: the same seed gives the same sequences.
    """
    convert(source, folder, max_length=144, window=288)
    model = LongformerForMaskedLM.from_pretrained(folder)
    tokenizer = read_tokenizer(source)
    mask = tokenizer.token_to_id("<mask>")
    letters = torch.tensor([tokenizer.token_to_id(letter) for letter in "ACDEFGHIKLMNPQRSTVWY"])
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([tokenizer.encode(HEAVY_CHAIN).ids]).repeat(count, 1)
    for _ in range(rounds):
        hidden = torch.rand(ids.shape, generator=generator) < 1 / 3
        hidden[:, [0, -1]] = False
        logits = torch.cat([model(rows).logits for rows in ids.masked_fill(hidden, mask).split(64)])
        drawn = letters[torch.multinomial(logits[..., letters][hidden].softmax(-1), 1, generator=generator)[:, 0]]
        ids[hidden] = drawn
    yield from ("".join(tokenizer.id_to_token(token) for token in row[1:-1].tolist()) for row in ids)


def articles(enwik8: Path, *, characters: int) -> Iterator[str]:
    """Yield the texts of articles from the first so many characters of enwik8, packed by xz; redirects are left out."""
    with lzma.open(enwik8, "rt", encoding="utf-8", errors="replace") as file:
        content = file.read(characters)
    for text in re.findall(r'<text xml:space="preserve">(.*?)</text>', content, re.DOTALL):
        if len(text) > 500 and not text.startswith("#REDIRECT"):
            yield text


def fresh_model(tokenizer: Path, target: Path, *, positions: int = 128, seed: int = 0) -> None:
    """Write a small RoBERTa-shaped model with random weights, whose every token sees every other, and its tokenizer.

    Its positions start as sinusoids (Vaswani et al. 2017, section 3.5), from which so small a model finds a token's
    neighbours in thousands of steps; they are learned like all else.
    """
    torch.manual_seed(seed)
    config = LongformerConfig(
        vocab_size=read_tokenizer(tokenizer).get_vocab_size(),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=positions + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        attention_window=2 * positions,
        initializer_range=0.06,  # RoBERTa's 0.02 is for six times this width
    )
    model = LongformerForMaskedLM(config)
    table = model.longformer.embeddings.position_embeddings.weight
    turns = torch.outer(torch.arange(len(table)), 10_000 ** -torch.linspace(0, 1, config.hidden_size // 2))
    with torch.no_grad():
        table.copy_(config.initializer_range * 2**0.5 * torch.cat([turns.sin(), turns.cos()], dim=1))
    copy_files(tokenizer, target)
    model.save_pretrained(target)


def write_documents(texts: Iterator[str], path: Path) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}) + "\n")


def main(kind: str, source: str, target: str) -> None:
    """Make one of the three."""
    if kind == "antibodies":
        write_documents(antibodies(Path(source), Path(target).with_suffix(".model"), count=1500), Path(target))
    elif kind == "articles":
        write_documents(articles(Path(source), characters=20_000_000), Path(target))
    else:
        fresh_model(Path(source), Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
