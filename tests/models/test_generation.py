"""Claims about generation: the cache changes nothing but the time it takes, and its size is bounded."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longformer.models.char_lm.generate import empty_caches, generate, next_logits
from longformer.models.char_lm.model import CharacterLM

Build = Callable[..., CharacterLM]
POSITIONS = ("transformer_xl", "rotary")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    position=st.sampled_from(POSITIONS),
    dilations=st.tuples(*[st.integers(1, 4)] * 3),
    windows=st.tuples(*[st.integers(1, 9)] * 3),
    prompt_length=st.integers(1, 60),
)
def test_cached_logits_equal_reading_the_whole_text_again(
    build_model: Build, position: str, dilations: tuple[int, ...], windows: tuple[int, ...], prompt_length: int
) -> None:
    model = build_model(position=position, dilations=dilations, windows=windows)
    text = torch.randint(0, 11, (prompt_length + 12,), generator=torch.Generator().manual_seed(prompt_length))
    caches = empty_caches(model)
    logits = [next_logits(model, text[:prompt_length], caches)]
    logits += [next_logits(model, text[i : i + 1], caches) for i in range(prompt_length, len(text))]
    expected = model(text[None])[0, prompt_length - 1 :]
    torch.testing.assert_close(torch.stack(logits), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("position", POSITIONS)
def test_the_most_probable_text_equals_the_one_found_without_a_cache(build_model: Build, position: str) -> None:
    model = build_model(position=position)
    prompt = torch.tensor([1, 2, 3, 4])
    text = prompt
    for _ in range(40):
        text = torch.cat([text, model(text[None])[0, -1].argmax()[None]])
    assert list(generate(model, prompt, new_tokens=40, temperature=0.0, seed=0)) == text[4:].tolist()


def test_the_cache_holds_what_the_band_reaches_and_no_more(build_model: Build) -> None:
    model = build_model(windows=(3, 4, 5), dilations=(1, 2, 3))
    caches = empty_caches(model)
    next_logits(model, torch.randint(0, 11, (500,)), caches)
    assert [len(cache.keys) for cache in caches] == [4, 9, 16]


def test_a_seed_repeats_the_text_and_another_changes_it(build_model: Build) -> None:
    model, prompt = build_model(), torch.tensor([1, 2, 3])
    first, again, other = (list(generate(model, prompt, new_tokens=60, seed=seed)) for seed in (5, 5, 6))
    assert first == again != other
    assert len(first) == 60


def test_top_one_is_the_most_probable_character_at_any_temperature(build_model: Build) -> None:
    model, prompt = build_model(), torch.tensor([1, 2, 3])
    greedy = list(generate(model, prompt, new_tokens=20, temperature=0.0, seed=0))
    assert list(generate(model, prompt, new_tokens=20, temperature=5.0, top_k=1, seed=1)) == greedy


def test_a_temperature_near_zero_is_that_of_the_most_probable_character(build_model: Build) -> None:
    model, prompt = build_model(), torch.tensor([1, 2, 3])
    drawn, best = (list(generate(model, prompt, new_tokens=9, temperature=each, seed=3)) for each in (1e-300, 0.0))
    assert drawn == best


def test_characters_are_drawn_with_the_probabilities_of_the_model(build_model: Build) -> None:
    model, prompt = build_model(), torch.tensor([1, 2, 3])
    draws = [next(generate(model, prompt, new_tokens=1, temperature=3.0, seed=seed)) for seed in range(400)]
    frequencies = torch.bincount(torch.tensor(draws), minlength=11) / 400
    probabilities = (model(prompt[None])[0, -1] / 3.0).softmax(-1)
    assert (frequencies - probabilities).abs().max() < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": torch.zeros(0, dtype=torch.long)}, "prompt"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
    ],
)
def test_a_wrong_argument_is_named_at_once(build_model: Build, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(build_model(), **{"prompt": torch.tensor([1]), "new_tokens": 1, "seed": 0, **arguments})
