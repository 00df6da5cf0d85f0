"""Blends of the ablation, sweeps, labelled figures and animations."""

from __future__ import annotations

import pytest
import torch

from diffstyle.errors import UsageError
from diffstyle.hspace import inject, norm
from diffstyle.settings import Settings


def maps(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(3, 4, 5, 5, generator=g), 2 * torch.randn(3, 4, 5, 5, generator=g)


def test_blends_are_what_they_say() -> None:
    h, c = maps()
    torch.testing.assert_close(inject(h, c, 0.3, kind="replace"), c)
    torch.testing.assert_close(inject(h, c, 1.0, kind="add"), h + c)
    torch.testing.assert_close(inject(h, c, 0.3, kind="lerp"), 0.7 * h + 0.3 * c)
    torch.testing.assert_close(norm(inject(h, c, 0.3)), norm(h))
    assert (norm(inject(h, c / 2, 0.5, kind="lerp")) < 0.9 * norm(h)).all()  # what Slerp is there to avoid


@pytest.mark.parametrize("kind", ["slerp", "lerp", "replace", "add"])
@pytest.mark.parametrize("match", [True, False])
def test_masks_bound_every_blend(kind: str, match: bool) -> None:
    h, c = maps(1)
    mask = torch.zeros(1, 1, 5, 5)
    mask[..., 1:3, 2:4] = 1
    mixed = inject(h, c, 0.5, mask, match, kind)
    outside = (mask == 0).expand_as(h)
    assert torch.equal(mixed[outside], h[outside])
    assert not torch.isclose(mixed[~outside], h[~outside]).all()


def test_unknown_blend() -> None:
    with pytest.raises(UsageError, match="--blend mush is not known: use slerp or lerp or replace or add"):
        Settings(blend="mush").check()
