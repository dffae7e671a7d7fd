"""How specs/data/signals.npz was made: noisy waves of five forms, the same numbers every time."""

from __future__ import annotations

import numpy as np

from llmbol_core.nn.randomness import Stream

FORMS = ("sine", "square", "triangle", "sawtooth", "noise")
LENGTH, COUNT = 64, 750


def signals() -> tuple[np.ndarray, np.ndarray]:
    """Return waves int8 [COUNT, LENGTH], in 1/100, and the numbers of their forms.

    Each has 2 to 6 periods, any phase, a height of 0.4 to 0.7, and noise of deviation 0.15.
    """
    random = Stream(seed=64, lane=0)
    labels = np.arange(COUNT) % len(FORMS)
    periods = random.uniform((COUNT, 1), 2, 6)
    turns = periods * np.arange(LENGTH) / LENGTH + random.uniform((COUNT, 1))
    place = turns % 1
    waves = np.stack(
        [
            np.sin(2 * np.pi * turns),
            np.where(place < 0.5, 1, -1),
            1 - 4 * np.abs(place - 0.5),
            2 * place - 1,
            random.normal((COUNT, LENGTH)),
        ]
    )
    chosen = waves[labels, np.arange(COUNT)] * random.uniform((COUNT, 1), 0.4, 0.7)
    noisy = chosen + 0.15 * random.normal((COUNT, LENGTH))
    return np.rint(100 * noisy).clip(-127, 127).astype(np.int8), labels.astype(np.uint8)
