"""The DDPM U-Net (Ho et al. 2020) as used for CelebA-HQ and LSUN, with the published state-dict names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffstyle.models.hspace_unet import Features, HSpaceUNet
from diffstyle.models.layers import GroupNorm32, TimeLinear, Upsample, add_, at_least_fp32, mul_, silu_

Norm = Callable[[int], nn.Module]  # a norm for so many channels


def timestep_embedding(t: Tensor, dim: int, cos_first: bool = False, freq_shift: float = 1) -> Tensor:
    """Sinusoidal embedding of t (N,) as (N, dim): sin first, then cos, frequencies 10000^(-i / (dim/2 - 1)), in fp32."""
    half = dim // 2
    freqs = torch.exp(torch.arange(half, dtype=t.dtype, device=t.device) * -(math.log(10000) / (half - freq_shift)))
    angles = t[:, None] * freqs[None, :]
    halves = [angles.cos(), angles.sin()] if cos_first else [angles.sin(), angles.cos()]
    return F.pad(torch.cat(halves, dim=1), (0, dim % 2))


class ResBlock(nn.Module):
    """Two 3x3 convolutions with the time embedding added in between, or scaling and shifting there."""

    def __init__(self, c_in: int, c_out: int, c_temb: int, dropout: float, norm: Norm, scale_shift: bool = False) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.norm1 = norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.temb_proj = TimeLinear(c_temb, 2 * c_out if scale_shift else c_out)
        self.norm2 = norm(c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        if c_in != c_out:
            self.nin_shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = self.conv1(silu_(self.norm1(x)))
        emb = self.temb_proj(temb).to(h.dtype)[:, :, None, None]
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = add_(mul_(self.norm2(h), 1 + scale), shift)
        else:
            h = self.norm2(add_(h, emb))
        h = self.conv2(self.dropout(silu_(h)))
        return add_(h, self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    """Self-attention over positions, its projections kept as 1x1 convolutions; one head unless ``head_dim`` is given."""

    def __init__(self, channels: int, norm: Norm, head_dim: int | None = None) -> None:
        super().__init__()
        self.heads, rest = divmod(channels, head_dim or channels)
        if rest:
            raise ValueError(f"head_dim {head_dim} does not divide {channels} channels")
        self.norm = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        parts = (p(y).flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3) for p in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(*parts)  # (N, heads, H*W, C / heads)
        return x + self.proj_out(y.transpose(2, 3).reshape(x.shape))


class Downsample(nn.Module):
    """Halve the resolution; the padding is one pixel at the right and the bottom, or (``all_sides``) everywhere."""

    def __init__(self, channels: int, with_conv: bool, all_sides: bool = False) -> None:
        super().__init__()
        self.padding = (1, 1, 1, 1) if all_sides else (0, 1, 0, 1)
        if with_conv:
            self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.padding)) if hasattr(self, "conv") else F.avg_pool2d(x, 2)


class Level(nn.Module):
    """One resolution of the encoder or the decoder: residual blocks, attention after each or none, and a resampler."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleList()
        self.attn = nn.ModuleList()
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def step(self, i: int, x: Tensor, temb: Tensor) -> Tensor:
        x = self.block[i](x, temb)
        return self.attn[i](x) if len(self.attn) else x


def make_level(
    c_ins: Sequence[int], c: int, res: Callable[[int, int], ResBlock], attn: Callable[[int], AttnBlock] | None
) -> Level:
    """Residual blocks from the channels ``c_ins`` to ``c``, with attention after each or none."""
    level = Level()
    for c_in in c_ins:
        level.block.append(res(c_in, c))
        if attn:
            level.attn.append(attn(c))
    return level


class TimeEmbedding(nn.Module):
    """Two dense layers on the sinusoidal embedding."""

    def __init__(self, ch: int, c_temb: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList([TimeLinear(ch, c_temb), TimeLinear(c_temb, c_temb)])

    def forward(self, embedding: Tensor) -> Tensor:
        first, second = self.dense
        return second(F.silu(first(embedding)))


class Middle(nn.Module):
    """The middle block, whose output is h."""

    def __init__(self, block_1: ResBlock, attn_1: AttnBlock, block_2: ResBlock) -> None:
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = block_1, attn_1, block_2

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x, temb)), temb)


class DDPM(HSpaceUNet):
    """The U-Net of DDPM / DDIM / SDEdit: ``h`` has ch * ch_mult[-1] channels at image_size / 2^(levels - 1).

    The keywords from ``head_dim`` on are the liberties of diffusers' ``UNet2DModel``; their defaults are the published
    networks. With ``scale_shift`` the middle attention has no norm, as there.
    """

    def __init__(
        self,
        image_size: int = 256,
        ch: int = 128,
        ch_mult: Sequence[float] = (1, 1, 2, 2, 4, 4),
        num_res_blocks: int = 2,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.0,
        resamp_with_conv: bool = True,
        in_channels: int = 3,
        out_ch: int = 3,
        head_dim: int | None = None,
        scale_shift: bool = False,
        norm_groups: int = 32,
        norm_eps: float = 1e-6,
        cos_first: bool = False,
        freq_shift: float = 1,
        pad_all_sides: bool = False,
    ) -> None:
        super().__init__()
        self.ch, self.num_res_blocks = ch, num_res_blocks
        self.cos_first, self.freq_shift = cos_first, freq_shift
        c_temb = 4 * ch

        norm = partial(GroupNorm32, norm_groups, eps=norm_eps)
        res = partial(ResBlock, c_temb=c_temb, dropout=dropout, norm=norm, scale_shift=scale_shift)
        attn = partial(AttnBlock, norm=norm, head_dim=head_dim)
        widths = [round(ch * mult) for mult in ch_mult]
        attns = [attn if image_size >> i in attn_resolutions else None for i in range(len(widths))]

        self.temb = TimeEmbedding(ch, c_temb)
        self.conv_in = nn.Conv2d(in_channels, ch, 3, padding=1)

        # Encoder: c_skips lists the channels of every activation that a skip connection carries.
        c, c_skips = ch, [ch]
        self.down = nn.ModuleList()
        for i, width in enumerate(widths):
            down = make_level([c] + [width] * (num_res_blocks - 1), width, res, attns[i])
            c = width
            c_skips += [c] * num_res_blocks
            if i != len(widths) - 1:
                down.downsample = Downsample(c, resamp_with_conv, pad_all_sides)
                c_skips.append(c)
            self.down.append(down)

        self.mid = Middle(res(c, c), attn(c, norm=nn.Identity) if scale_shift else attn(c), res(c, c))

        # Decoder: built from the deepest level up, stored with the outermost level first as published.
        levels: list[Level] = []
        for i, width in reversed(list(enumerate(widths))):
            c_ins = [below + c_skips.pop() for below in [c] + [width] * num_res_blocks]
            up = make_level(c_ins, width, res, attns[i])
            c = width
            if i != 0:
                up.upsample = Upsample(c, resamp_with_conv)
            levels.insert(0, up)
        self.up = nn.ModuleList(levels)

        self.norm_out = norm(c)
        self.conv_out = nn.Conv2d(c, out_ch, 3, padding=1)

    @staticmethod
    def levels(modules: nn.ModuleList) -> list[Level]:
        return [level for level in modules if isinstance(level, Level)]

    def encode(self, x: Tensor, t: Tensor) -> Features:
        # Time embedding
        dtype = self.conv_in.weight.dtype
        embedding = timestep_embedding(t, self.ch, self.cos_first, self.freq_shift)
        temb = F.silu(self.temb(embedding.to(next(self.temb.parameters()).dtype)))  # (N, 4 ch), as every block takes it

        # Encoder
        skips = [self.conv_in(x.to(dtype))]
        for level in self.levels(self.down):
            for i in range(self.num_res_blocks):
                skips.append(level.step(i, skips[-1], temb))
            if level.downsample is not None:
                skips.append(level.downsample(skips[-1]))

        # Middle
        return Features(self.mid(skips[-1], temb), tuple(skips), temb)

    def decode(self, f: Features) -> Tensor:
        # Decoder
        y, remaining = f.h, list(f.skips)
        for level in reversed(self.levels(self.up)):
            for i in range(self.num_res_blocks + 1):
                y = level.step(i, torch.cat([y, remaining.pop()], dim=1), f.temb)
            if level.upsample is not None:
                y = level.upsample(y)

        # Output
        return at_least_fp32(self.conv_out(silu_(self.norm_out(y)))[:, :3])
