"""What a run file says about a cluster: what a phase asks of Ray, and how much loss a run puts up with.

Other backends than Ray and Slurm do not look at it.
"""

from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from launcher.rank_range import RankRange
from launcher.section import Section


class ResourcesSection(Section):
    """What a phase asks of a Ray cluster."""

    ranks: Annotated[str, Field(coerce_numbers_to_str=True)] | None = None
    """Processes that train together, such as 4 or 2-4; `null` = those of `--ranks`."""
    gpus_per_rank: Annotated[int, Field(ge=0)] | None = None
    """GPUs of each rank; `null` = 1 where the cluster has any, else 0."""
    processors_per_rank: PositiveInt = 1
    """Processor cores of each rank."""

    @property
    def rank_range(self) -> RankRange | None:
        """The ranks as numbers; None where `--ranks` decides."""
        return None if self.ranks is None else RankRange.parse(self.ranks)

    @model_validator(mode="after")
    def _check_ranks(self) -> Self:
        try:
            _ = self.rank_range
        except ValueError as error:
            raise ValueError(f"ranks: {error}") from None
        return self


class ClusterSection(Section):
    """How a run lives on a cluster, whose machines come and go."""

    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often ranks may be lost before there is a new checkpoint; once more ends the run."""
