"""The noise z of the boosted steps, drawn on the CPU so that every device gives the same picture."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NextNoise = Callable[[], Tensor]


def pair_noise(seed: int | Sequence[int], pairs: Sequence[tuple[str, str]], shape: tuple[int, int, int]) -> NextNoise:
    """One generator a pair, seeded from (seed, content digest, style digest): no pair's picture depends on another.

    ``seed`` may be one for each pair. Returns a function that gives the next (N, 3, H, W) on the CPU, N = len(pairs).
    """
    seeds = [seed] * len(pairs) if isinstance(seed, int) else seed
    generators = [seeded(f"{seed}|{content}|{style}") for seed, (content, style) in zip(seeds, pairs, strict=True)]
    return lambda: torch.stack([torch.randn(shape, generator=g) for g in generators])


def seeded(text: str) -> torch.Generator:
    """A CPU generator of its own for each ``text``."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)


def generator_after(seed: int, draw: Callable[[], object]) -> torch.Generator:
    """A CPU generator seeded with ``seed`` and left where ``draw`` leaves PyTorch's global one, which is not disturbed.

    The official main.py seeds first and then builds its network, whose random weights come from the same generator.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draw()
        state = torch.get_rng_state()
    generator = torch.Generator()
    generator.set_state(state)
    return generator


class OneStream:
    """The official code's noise: one generator for all pairs, drawn pair after pair, step after step.

    Pairs are asked for in ascending order; those left out (done before) are drawn and thrown away. With calibration the
    official code draws twice a step and uses the second. On a GPU it draws from the GPU's generator, which cannot be
    replayed elsewhere; this is its stream on the CPU.
    """

    def __init__(self, generator: torch.Generator, shape: tuple[int, int, int], steps: int, calibrated: bool) -> None:
        self.generator = generator
        self.shape, self.steps, self.repeat = shape, steps, 2 if calibrated else 1
        self.next_pair = 0
        self.drawn: dict[int, list[Tensor]] = {}  # the last batch's, which may come again in halves (out of memory)

    def pair(self) -> list[Tensor]:
        """The draws of the next pair, one (3, H, W) a boosted step."""
        self.next_pair += 1
        draws = [torch.randn((1, *self.shape), generator=self.generator)[0] for _ in range(self.steps * self.repeat)]
        return draws[self.repeat - 1 :: self.repeat]

    def batch(self, indices: Sequence[int]) -> NextNoise:
        """The noise of the pairs with these ascending positions in the run: gives the next (N, 3, H, W)."""
        self.drawn = {i: draws for i, draws in self.drawn.items() if i >= indices[0]}
        for index in indices:
            while self.next_pair < index:
                self.pair()
            if self.next_pair == index:
                self.drawn[index] = self.pair()
        draws = [self.drawn[index] for index in indices]
        by_step = iter(zip(*draws, strict=True))
        return lambda: torch.stack(next(by_step))
