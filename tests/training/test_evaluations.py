"""The best step is the first of the best evaluations, and training ends when patience does."""

import math

from hypothesis import given
from hypothesis import strategies as st

from longformer.training.evaluations import IntervalEvaluation
from longformer.training.records import Progress

scores_of_a_phase = st.lists(st.sampled_from([1.0, 2.0, 3.0, math.nan, math.inf]), min_size=1, max_size=12)


@given(scores_of_a_phase, st.booleans(), st.one_of(st.none(), st.integers(1, 4)))
def test_the_first_best_score_is_kept_and_patience_counts_the_evaluations_since(
    scores: list[float], higher_is_better: bool, patience: int | None
) -> None:
    evaluations = IntervalEvaluation(
        evaluate=lambda progress: scores[progress.step - 1], higher_is_better=higher_is_better, patience=patience
    )
    progress, done = Progress(), 0
    while done < len(scores) and not evaluations.are_enough(progress):
        done += 1
        progress = evaluations.after(Progress(**vars(progress) | {"step": done}))

    finite = [(score if higher_is_better else -score, -step) for step, score in enumerate(scores, 1)]
    best_of = [
        max((pair for pair in finite[:upto] if math.isfinite(pair[0])), default=None) for upto in range(done + 1)
    ]
    best = best_of[-1]
    assert progress.best_step == (None if best is None else -best[1])
    since = done - (progress.best_step or 0)
    assert progress.evaluations_since_best == since
    assert (done < len(scores)) <= (since == patience)
    assert progress.evaluated_step == done


def test_without_a_score_every_evaluation_is_only_noted() -> None:
    evaluations = IntervalEvaluation(evaluate=lambda progress: None)
    assert evaluations.after(Progress(step=3)) == Progress(step=3, evaluated_step=3)
