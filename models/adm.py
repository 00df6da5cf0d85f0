"""The ADM U-Net (Dhariwal & Nichol 2021, guided-diffusion) with its published state-dict names.

Used for AFHQ-dog and FFHQ (ILVR, P2), MetFaces (P2) and ImageNet. Head count, attention order and scale-shift cannot
be told from the shapes of a checkpoint: they must come from the config.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffstyle.models.hspace_unet import Features, HSpaceUNet
from diffstyle.models.layers import GroupNorm32, TimeLinear, Upsample, add_, at_least_fp32, mul_, silu_

# guided-diffusion's channel multipliers when a config leaves them out
DEFAULT_CHANNEL_MULT: dict[int, tuple[float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
}


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of t (N,) as (N, dim): cos first, then sin, frequencies 10000^(-i / (dim/2)), in fp32."""
    half = dim // 2
    freqs = torch.exp(torch.arange(half, dtype=t.dtype, device=t.device) * -(math.log(10000) / half))
    angles = t[:, None] * freqs[None, :]
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, dim % 2))


class Downsample(nn.Module):
    """A strided 3x3, or average pooling inside a residual block."""

    def __init__(self, channels: int, with_conv: bool) -> None:
        super().__init__()
        self.op: nn.Module = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if with_conv else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class ResBlock(nn.Module):
    """Residual block; ``resample`` ("up", "down" or "") changes the resolution inside it."""

    def __init__(self, c_in: int, c_out: int, c_emb: int, dropout: float, scale_shift: bool, resample: str = "") -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(GroupNorm32(32, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), TimeLinear(c_emb, 2 * c_out if scale_shift else c_out))
        self.out_layers = nn.Sequential(
            GroupNorm32(32, c_out), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(c_out, c_out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        resamplers = {"up": Upsample, "down": Downsample}
        self.resample = resamplers[resample](c_in, with_conv=False) if resample else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, _, conv = self.in_layers
        h = conv(self.resample(silu_(norm(x))))
        emb_out = self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        norm, _, dropout, conv = self.out_layers
        if self.scale_shift:
            scale, shift = emb_out.chunk(2, dim=1)
            h = add_(mul_(norm(h), 1 + scale), shift)
        else:
            h = norm(add_(h, emb_out))
        h = conv(dropout(silu_(h)))
        return add_(h, self.skip_connection(self.resample(x)))


class AttentionBlock(nn.Module):
    """Multi-head self-attention; the legacy order packs (head, qkv, channel), the new order (qkv, head, channel)."""

    def __init__(self, channels: int, heads: int, new_order: bool) -> None:
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = GroupNorm32(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, *_ = x.shape
        flat = x.reshape(n, c, -1)
        qkv = self.qkv(self.norm(flat))  # (N, 3C, H*W)
        if self.new_order:
            q, k, v = qkv.reshape(n, 3, self.heads, c // self.heads, -1).unbind(1)
        else:
            q, k, v = qkv.reshape(n, self.heads, 3, c // self.heads, -1).unbind(2)
        y = F.scaled_dot_product_attention(q.transpose(2, 3), k.transpose(2, 3), v.transpose(2, 3))
        y = y.transpose(2, 3).reshape(n, c, -1)
        return (flat + self.proj_out(y)).reshape(x.shape)


class Stage(nn.Sequential):
    """guided-diffusion's sequence of layers in which only the residual blocks see the time embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class ADM(HSpaceUNet):
    """The ADM U-Net, unconditional: ``h`` has num_channels * channel_mult[-1] channels.

    ``attention_resolutions`` are image resolutions (32 means "where the map is 32 wide"), as in guided-diffusion's flag.
    ``num_head_channels`` = -1 uses ``num_heads`` (and ``num_heads_upsample`` in the decoder, unless that is -1).
    """

    def __init__(
        self,
        image_size: int = 256,
        num_channels: int = 128,
        num_res_blocks: int = 1,
        channel_mult: Sequence[float] = (),
        attention_resolutions: Sequence[int] = (16,),
        num_heads: int = 4,
        num_head_channels: int = 64,
        num_heads_upsample: int = -1,
        use_scale_shift_norm: bool = True,
        resblock_updown: bool = True,
        learn_sigma: bool = True,
        dropout: float = 0.0,
        use_new_attention_order: bool = False,
    ) -> None:
        super().__init__()
        if not channel_mult and image_size not in DEFAULT_CHANNEL_MULT:
            raise ValueError(f"channel_mult has no default for image_size {image_size}: give it in the config")
        mults = tuple(channel_mult) or DEFAULT_CHANNEL_MULT[image_size]
        self.num_channels = num_channels
        c_emb = 4 * num_channels

        def res(c_in: int, c_out: int, resample: str = "") -> ResBlock:
            return ResBlock(c_in, c_out, c_emb, dropout, use_scale_shift_norm, resample)

        def attention(c: int, heads: int) -> AttentionBlock:
            return AttentionBlock(c, c // num_head_channels if num_head_channels != -1 else heads, use_new_attention_order)

        self.time_embed = nn.Sequential(TimeLinear(num_channels, c_emb), nn.SiLU(), TimeLinear(c_emb, c_emb))

        # Encoder: every stage leaves one skip, c_skips lists their channels.
        c, resolution = int(mults[0] * num_channels), image_size
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(3, c, 3, padding=1))])
        c_skips = [c]
        for i, mult in enumerate(mults):
            c_out = int(mult * num_channels)
            for _ in range(num_res_blocks):
                layers: list[nn.Module] = [res(c, c_out)]
                c = c_out
                if resolution in attention_resolutions:
                    layers.append(attention(c, num_heads))
                self.input_blocks.append(Stage(*layers))
                c_skips.append(c)
            if i != len(mults) - 1:
                self.input_blocks.append(Stage(res(c, c, "down") if resblock_updown else Downsample(c, with_conv=True)))
                c_skips.append(c)
                resolution //= 2

        self.middle_block = Stage(res(c, c), attention(c, num_heads), res(c, c))

        # Decoder
        heads_up = num_heads if num_heads_upsample == -1 else num_heads_upsample
        self.output_blocks = nn.ModuleList()
        for i, mult in reversed(list(enumerate(mults))):
            c_out = int(mult * num_channels)
            for j in range(num_res_blocks + 1):
                layers = [res(c + c_skips.pop(), c_out)]
                c = c_out
                if resolution in attention_resolutions:
                    layers.append(attention(c, heads_up))
                if i != 0 and j == num_res_blocks:
                    layers.append(res(c, c, "up") if resblock_updown else Upsample(c, with_conv=True))
                    resolution *= 2
                self.output_blocks.append(Stage(*layers))

        self.out = nn.Sequential(GroupNorm32(32, c), nn.SiLU(), nn.Conv2d(c, 6 if learn_sigma else 3, 3, padding=1))

    def encode(self, x: Tensor, t: Tensor) -> Features:
        # Time embedding
        embedding = timestep_embedding(t, self.num_channels)
        emb = self.time_embed(embedding.to(next(self.time_embed.parameters()).dtype))  # (N, 4 ch)

        # Encoder
        skips: list[Tensor] = []
        y = x.to(next(self.input_blocks.parameters()).dtype)  # the first convolution's
        for stage in self.input_blocks:
            y = stage(y, emb)
            skips.append(y)

        # Middle
        return Features(self.middle_block(y, emb), tuple(skips), emb)

    def decode(self, f: Features) -> Tensor:
        # Decoder
        y, remaining = f.h, list(f.skips)
        for stage in self.output_blocks:
            y = stage(torch.cat([y, remaining.pop()], dim=1), f.temb)

        # Output
        norm, _, conv = self.out
        return at_least_fp32(conv(silu_(norm(y)))[:, :3])
