"""The search for probable texts by beams, as in Hugging Face 5: what is kept, what is complete, when it ends."""

import torch
from torch import Tensor

from longformer.models.generation.config import GenerationSettings
from longformer.models.generation.logits_processors import sampled

EMPTY = -1
"""Stands where a text has no token."""


class Beams:
    """The texts that are written about some documents: `num_beams` open ones for each, and the best complete ones.

    Args:
        documents: how many.
        settings: what is asked for.
        device: where the tokens lie.
    """

    def __init__(self, documents: int, settings: GenerationSettings, device: torch.device) -> None:
        shape = (documents, settings.num_beams)
        self.settings = settings
        self.written = torch.full((*shape, 1), settings.decoder_start_token_id, device=device)
        """(documents, beams, tokens): the open texts."""
        self.scores = torch.full(shape, -torch.inf, device=device)
        """(documents, beams): their log-probabilities, the best first; at the start all beams are alike, one counts."""
        self.scores[:, 0] = 0
        self.complete = torch.full((*shape, settings.max_length), EMPTY, device=device)
        """(documents, beams, max_length): the complete texts, the best first."""
        self.complete_scores = torch.full(shape, -torch.inf, device=device)
        """(documents, beams): log-probability / tokens ** length_penalty; -inf where there is no text yet."""

    def advance(self, scores: Tensor, noise: Tensor | None) -> Tensor:
        """Writes one more token.

        Args:
            scores: (documents * beams, vocabulary): log-probabilities of the next token after all processors.
            noise: (documents, beams * vocabulary), for `sampled`; None: the best ones are taken.

        Returns:
            (documents, beams): which row of `scores` each open text goes on from.
        """
        settings, beams = self.settings, self.settings.num_beams
        totals = (scores.unflatten(0, (-1, beams)) + self.scores[..., None]).flatten(1)
        # So many that enough open texts remain when all the best ones end.
        count = max(2, 1 + len(settings.eos_token_id)) * beams
        choices = totals.topk(count).indices if noise is None else sampled(totals, count, noise)
        parents, tokens = choices // scores.shape[1], choices % scores.shape[1]
        totals = totals.gather(1, choices)
        texts = torch.cat([taken(self.written, parents), tokens[..., None]], dim=2)

        length = texts.shape[2]
        ends = torch.isin(tokens, tokens.new_tensor(settings.eos_token_id)) | (length == settings.max_length)
        self._keep_complete(texts[:, :beams], totals[:, :beams], ends[:, :beams])
        kept = totals.masked_fill(ends, -torch.inf).topk(beams).indices
        self.written, self.scores = taken(texts, kept), totals.gather(1, kept)
        first_rows = torch.arange(len(kept), device=kept.device)[:, None] * beams
        return first_rows + parents.gather(1, kept)

    def _keep_complete(self, texts: Tensor, totals: Tensor, ends: Tensor) -> None:
        """Keeps the best complete texts, old and new."""
        length = texts.shape[2]
        scores = (totals / (length - 1) ** self.settings.length_penalty).masked_fill(~ends, -torch.inf)
        new = torch.full_like(self.complete, EMPTY)
        new[..., :length] = texts
        self.complete_scores, best = torch.cat([self.complete_scores, scores], 1).topk(self.settings.num_beams)
        self.complete = taken(torch.cat([self.complete, new], 1), best)

    def done(self) -> Tensor:
        """Returns which documents need no further search, (documents,) bool."""
        settings, length = self.settings, self.written.shape[2]
        if length == settings.max_length:
            return torch.ones(len(self.written), dtype=torch.bool, device=self.written.device)
        worst = self.complete_scores[:, -1]
        if settings.early_stopping is True:
            return worst > -torch.inf
        reach = settings.max_length if settings.early_stopping == "never" and settings.length_penalty > 0 else length
        return self.scores[:, 0] / (reach - 1) ** settings.length_penalty <= worst

    def keep(self, documents: Tensor) -> None:
        """Goes on with some documents only, (documents,) long."""
        for name in ("written", "scores", "complete", "complete_scores"):
            setattr(self, name, getattr(self, name).index_select(0, documents))


def taken(texts: Tensor, beams: Tensor) -> Tensor:
    """Returns the texts (documents, chosen, tokens) that `beams`, (documents, chosen), names."""
    return texts.take_along_dim(beams[..., None], dim=1)
