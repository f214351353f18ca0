"""Train a small BART from nothing, so that there is a short encoder-decoder of our own to make long.

    python benchmarks/small_bart.py --source ../shared/data/sumpubmed --output runs/small-bart

It learns what BART learned (Lewis et al. 2019, text infilling): to write a stretch of an article from which spans were
taken out, each replaced by one mask. The articles are SumPubMed's of the training split; its abstracts are not read.
The folder is one of Hugging Face's, with a byte-level tokenizer trained on a quarter of them.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BartConfig, BartForConditionalGeneration

from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.summaries import DOCUMENT, summaries
from data_pipeline.tokenizers.subword import TextTokenizer, train_tokenizer

VOCABULARY = 4_000
STRETCH = 128
"""Tokens that are read and written at a time."""
HIDDEN = 0.3
MEAN_SPAN = 3


def articles(source: Path) -> list[str]:
    """Return the articles of the training split."""
    corpus = summaries(source, "sumpubmed")
    examples = corpus.read(DocumentReader(corpus.files), Quarantine(0))
    return [str(example.texts[DOCUMENT]) for example in examples if example.split == "train"]


def infilled(text: np.ndarray, mask: int, random: np.random.Generator) -> list[int]:
    """Return the tokens of `text` (1-D) with spans replaced by one mask each, `HIDDEN` of all tokens in all."""
    kept = np.ones(len(text), dtype=bool)
    begins = np.zeros(len(text), dtype=bool)
    while kept.mean() > 1 - HIDDEN:
        start = int(random.integers(len(text)))
        span = kept[start : start + 1 + random.poisson(MEAN_SPAN - 1)]
        begins[start] |= bool(span.all())
        span[:] = False
    return [
        mask if begin else int(token) for token, keep, begin in zip(text, kept, begins, strict=True) if keep or begin
    ]


def batch_of(tokens: np.ndarray, tokenizer: TextTokenizer, size: int, random: np.random.Generator) -> dict:
    """Return a batch of stretches: what is read, and as labels what is to be written."""
    ids = tokenizer.special
    starts = random.integers(len(tokens) - STRETCH, size=size)
    texts = [tokens[start : start + STRETCH - 2] for start in starts]
    sources = [[ids.begin, *infilled(text, ids.mask, random), ids.end] for text in texts]
    longest = max(map(len, sources))
    padded = torch.tensor([source + [ids.padding] * (longest - len(source)) for source in sources])
    labels = torch.tensor([[ids.begin, *text, ids.end] for text in texts])
    return {"input_ids": padded, "attention_mask": (padded != ids.padding).long(), "labels": labels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of SumPubMed")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    arguments = parser.parse_args()

    texts = articles(arguments.source)
    tokenizer = train_tokenizer(texts[::4], vocabulary_size=VOCABULARY)
    tokens = np.concatenate(list(tokenizer.encode_batch(texts))).astype(np.int64)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    print(f"{len(texts)} articles, {len(tokens):,} tokens", flush=True)
    config = BartConfig(
        vocab_size=tokenizer.vocabulary_size,
        max_position_embeddings=512,
        d_model=arguments.width,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=4 * arguments.width,
        decoder_ffn_dim=4 * arguments.width,
        dropout=0.0,
    )
    model = BartForConditionalGeneration(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.5e-3, total_steps=arguments.steps, pct_start=0.1)
    started = time.monotonic()
    for step in range(1, arguments.steps + 1):
        loss = model(**batch_of(tokens, tokenizer, arguments.batch_size, random)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0 or step == arguments.steps:
            print(f"step {step} loss {loss.item():.3f} after {time.monotonic() - started:.0f} s", flush=True)
    model.save_pretrained(arguments.output)
    Tokenizer.from_str(tokenizer.content).model.save(str(arguments.output))


if __name__ == "__main__":
    main()
