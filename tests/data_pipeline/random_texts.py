"""Small random documents."""

import random


def random_texts(count: int, *, seed: int) -> list[str]:
    """Return texts of 1 to 200 words, no two alike."""
    words = ["long", "documents", "are", "read", "in", "one", "piece,", "not", "cut", "Zürich", "\n"]
    generator = random.Random(seed)
    return [f"{number} " + " ".join(generator.choices(words, k=generator.randint(1, 200))) for number in range(count)]
