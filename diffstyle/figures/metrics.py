"""How near a result is to its content and to its style: definitions written out, in a few lines each.

Pictures are (N, 3, H, W) in [0, 1] unless said otherwise; every function gives one number a sample, (N,). Features are
lists of maps (N, C_l, H_l, W_l), from whatever network; diffstyle.figures.feature_networks has those that can be had.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 11  # pixels of a picture, the window of ssim
GREY = (0.2125, 0.7154, 0.0721)  # luma weights (scikit-image's rgb2gray)
FLOAT = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


# ---- on features -------------------------------------------------------------------------------------------------


def gram(f: Tensor) -> Tensor:
    """Gram matrix of a map (N, C, H, W): G_ij = sum_hw f_i f_j / (C H W), (N, C, C) (Gatys et al. 2016)."""
    flat = f.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


def gram_loss(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Gram style loss: the mean over layers of the mean squared difference of the Gram matrices.

    L = 1/L sum_l 1/C_l^2 sum_ij (G_ij(a_l) - G_ij(b_l))^2, with G as in ``gram``. No published code of the paper says
    which normalisation its table uses, so only ratios of this number should be compared with it.
    """
    return torch.stack([(gram(x) - gram(y)).square().mean((1, 2)) for x, y in zip(a, b, strict=True)]).mean(0)


def lpips(a: Sequence[Tensor], b: Sequence[Tensor], heads: Sequence[Tensor] | None = None) -> Tensor:
    """Learned perceptual distance (Zhang et al. 2018) from two pictures' features.

    d = sum_l mean_hw sum_c w_lc (a^_lc - b^_lc)^2, where ^ is division by the channel norm at every place (+ 1e-10).
    ``heads`` are the learned w_l, each (C_l,) and not negative; without them every w_lc is 1 / C_l: the uncalibrated form.
    """
    total = a[0].new_zeros(len(a[0]))
    for level, (x, y) in enumerate(zip(a, b, strict=True)):
        x, y = (f / (f.norm(dim=1, keepdim=True) + 1e-10) for f in (x, y))
        w = heads[level] if heads else x.new_full((x.shape[1],), 1 / x.shape[1])
        total = total + ((x - y).square() * w[None, :, None, None]).sum(1).mean((1, 2))
    return total


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of embeddings (N, ...), over everything but N; 0 where one is zero."""
    return F.cosine_similarity(a.flatten(1), b.flatten(1))


def frechet(a: FLOAT, b: FLOAT) -> float:
    """Frechet distance of two sets of embeddings (N, D) and (M, D), each taken for a Gaussian (Heusel et al. 2017, FID).

    |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2), covariances over N - 1. With S = X^T X of the centred rows, the
    trace of the root is the sum of the singular values of X_a X_b^T: no matrix root, and exact for fewer pictures than
    dimensions too. It falls as N and M grow, so only sets of the same size can be compared. Needs N, M >= 2.
    """

    def spread(side: FLOAT) -> FLOAT:
        """X, or a square matrix with the same X^T X where there are more pictures than dimensions."""
        x: FLOAT = (side - side.mean(0)) / math.sqrt(len(side) - 1)
        return x if len(x) <= x.shape[1] else np.asarray(np.linalg.qr(x, mode="r"))

    x, y = spread(a), spread(b)
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.square(x).sum() + np.square(y).sum() - 2 * root)


# ---- on pictures, without a network ------------------------------------------------------------------------------


def to_grey(x: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, 1, H, W)."""
    return (x * x.new_tensor(GREY)[None, :, None, None]).sum(1, keepdim=True)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of the grey pictures: Gaussian window, sigma 1.5, 11 pixels; 1 is equal.

    As scikit-image's structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1):
    the mean is over the places whose window lies inside the picture, which must be SMALLEST pixels or larger.
    """
    a, b = to_grey(a).double(), to_grey(b).double()
    offsets = torch.arange(-5, 6, dtype=torch.float64, device=a.device)
    line = (-(offsets**2) / (2 * 1.5**2)).exp()
    window = line[:, None] * line[None, :]
    window = (window / window.sum())[None, None]
    mean_a, mean_b = F.conv2d(a, window), F.conv2d(b, window)
    var_a, var_b = F.conv2d(a * a, window) - mean_a**2, F.conv2d(b * b, window) - mean_b**2
    covariance = F.conv2d(a * b, window) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return value.mean((1, 2, 3)).to(torch.float32)


def edges(x: Tensor) -> Tensor:
    """Sobel gradient magnitude of the grey picture, (N, 1, H-2, W-2)."""
    row, column = x.new_tensor([1.0, 2.0, 1.0]) / 4, x.new_tensor([1.0, 0.0, -1.0]) / 2
    grey = to_grey(x)
    gx, gy = (F.conv2d(grey, k[None, None]) for k in (row[:, None] * column, column[:, None] * row))
    return (gx.square() + gy.square()).sqrt()


def edge_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of the two edge maps, -1 to 1: where outlines lie, whatever their colours."""
    x, y = (edges(p).flatten(1) for p in (a, b))
    return cosine(x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True))


def histogram_distance(a: Tensor, b: Tensor, bins: int = 8) -> Tensor:
    """Hellinger distance of the joint RGB histograms (bins^3 cells), 0 equal to 1 disjoint: colours, wherever they are.

    sqrt(1 - sum_k sqrt(p_k q_k)).
    """

    def counts(x: Tensor) -> Tensor:
        index = (x.clamp(0, 1) * bins).long().clamp(max=bins - 1)
        code = (index[:, 0] * bins + index[:, 1]) * bins + index[:, 2]
        return torch.stack([torch.bincount(c.flatten(), minlength=bins**3) for c in code]).to(x.dtype) / code[0].numel()

    return (1 - (counts(a) * counts(b)).sqrt().sum(1)).clamp(min=0).sqrt()


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, for the reconstruction error; 100 for equal pictures."""
    return (-10 * (a - b).square().mean((1, 2, 3)).clamp(min=1e-10).log10()).to(torch.float32)


def filter_bank(x: Tensor) -> list[Tensor]:
    """A fixed stand-in for a trained network: colours and their gradients at three scales, each (N, 9, H_l, W_l)."""
    features = []
    for level in range(3):
        p = F.avg_pool2d(x, 2**level) if level else x
        padded = F.pad(p, (1, 1, 1, 1), mode="replicate")
        gx = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
        gy = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
        features.append(torch.cat([p - 0.5, 4 * gx, 4 * gy], 1))
    return features


# ---- how sure a mean is ------------------------------------------------------------------------------------------


def shared_sides(contents: Sequence[str], styles: Sequence[str]) -> list[Sequence[str]]:
    """The sides by which pairs hang together: both, or one of them where every pair has a content and a style of its own."""
    return [contents] if len(set(contents)) == len(set(styles)) == len(contents) else [contents, styles]


def bootstrap(
    values: Sequence[float], contents: Sequence[str], styles: Sequence[str], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean and 95 % interval over pairs; contents and styles are drawn again, because pairs that share one are not independent.

    (Owen 2007, the pigeonhole bootstrap: a pair's weight is how often its content was drawn times how often its style was.)
    Pairs that share nothing are drawn as pairs.
    """
    array = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    weights = np.ones((draws, len(array)))
    for labels in shared_sides(contents, styles):
        names, index = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)
        weights *= rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)[:, index]
    total = weights.sum(1)
    means: FLOAT = (weights @ array)[total > 0] / total[total > 0]
    low, high = np.quantile(means, [0.025, 0.975]) if len(means) else (math.nan, math.nan)
    return float(array.mean()), float(low), float(high)


def jackknife(
    statistic: Callable[[Sequence[int]], float], contents: Sequence[str], styles: Sequence[str], groups: int = 20
) -> tuple[float, float, float]:
    """``statistic`` of all pairs, given as positions, and its 95 % interval, for what is no mean of pairs (a Frechet distance).

    Contents, then styles, are left out in up to ``groups`` groups; both variances are added (Shao and Tu 1995, section 5.1).
    Drawing pairs with repetition, as ``bootstrap`` does, would shift a Frechet distance, because repeated pictures narrow a set.
    """
    whole, variance = statistic(range(len(contents))), math.nan  # of fewer than three contents and styles nothing is known
    for labels in shared_sides(contents, styles):
        names = sorted(set(labels))
        if len(names) < 3:  # two left out one at a time say nothing about a spread
            continue
        count = min(groups, len(names))
        parts = [set(names[k::count]) for k in range(count)]
        without = np.array([statistic([i for i, name in enumerate(labels) if name not in part]) for part in parts])
        variance = (0 if math.isnan(variance) else variance) + (count - 1) * float(without.var())
    half = 1.96 * math.sqrt(variance)
    return whole, whole - half, whole + half


Features = Callable[[Tensor], list[Tensor]]  # pictures (N, 3, H, W) in [0, 1] to maps
Embedding = Callable[[Tensor], Tensor]  # pictures in [0, 1] to (N, D)
