"""benchmarks/precision.py: TF32 as it is emulated on the CPU."""

from __future__ import annotations

import precision
import torch
from torch import nn


def test_tf32_keeps_ten_bits_of_mantissa() -> None:
    unit = 2.0**-10
    x = torch.tensor([1.0, 1 + unit, 1 + unit * 0.49, 1 + unit * 0.51, 1 + unit / 2, 1 + 1.5 * unit, -1 - 0.51 * unit, 0.0, 3e38])
    rounded = [1.0, 1 + unit, 1.0, 1 + unit, 1.0, 1 + 2 * unit, -1 - unit, 0.0]
    assert precision.round_to_tf32(x)[:-1].tolist() == rounded
    y = torch.randn(1000, 3)
    relative = ((precision.round_to_tf32(y) - y) / y).abs()
    assert float(relative.max()) <= unit / 2 and float(relative.median()) > unit / 16


def test_emulation_rounds_what_the_precision_says() -> None:
    x = torch.randn(2, 4, 5, 5)
    for name, dense in (("tf32-conv", False), ("tf32", True)):
        conv, linear = nn.Conv2d(4, 4, 3), nn.Linear(5, 5)
        net = nn.ModuleList([conv, linear])
        before = linear(x)
        expected = torch.conv2d(precision.round_to_tf32(x), precision.round_to_tf32(conv.weight), conv.bias)
        precision.emulate_tf32(net, name)
        assert torch.equal(conv(x), expected)
        assert torch.equal(linear(x), before) != dense
