"""The measures as a table: which pictures each compares, how it sees them, and which protocol it belongs to.

``docs/metrics.md`` says the same at length. A measure whose network is not on this machine stays in the table without a
way to compute it, and ``reason`` says why: it becomes n/a, never another number under its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffstyle.errors import DiffstyleError, WorkError
from diffstyle.figures import faces, feature_networks, metrics
from diffstyle.figures.feature_networks import AbsentError
from diffstyle.figures.metrics import FLOAT, Embedding, Features
from diffstyle.model import Model

PROTOCOLS = ("offline", "faces", "paper", "artfid")
LITE0 = "EfficientNet-Lite0: bilinear, antialiased, to 224x224, (255 x - 127) / 128"
Compute = Callable[[Tensor, Tensor, Tensor], Tensor]  # result, content, style, each (1, 3, H, W) in [0, 1], to (1,)


@dataclass(frozen=True)
class Measure:
    """One row of the report: a mean over pairs, a distance of two sets, or a product of others. Without any it is n/a."""

    name: str
    better: str  # "less" or "more"
    protocol: str  # which of PROTOCOLS it belongs to
    how: str  # the line that is printed beside the number
    compute: Compute | None = None  # of one pair
    embed: Embedding | None = None  # all results against the styles, by their Frechet distance
    style_per_result: bool = False  # in that distance: a style counts once for every result that has it
    product: tuple[str, ...] = ()  # (1 + first) (1 + second) of these measures
    reason: str = ""


@dataclass
class Sample:
    """What was measured of one pair."""

    variant: str  # folder of a sweep, "" for a plain run
    content: str
    style: str
    values: dict[str, float] = field(default_factory=dict)
    vectors: dict[str, tuple[FLOAT, FLOAT]] = field(default_factory=dict)  # by measure: embeddings of result and style


def measure(row: Measure, sample: Sample, result: Tensor, content: Tensor, style: Tensor) -> None:
    """Put into ``sample`` what this measure needs of one pair; pictures (1, 3, H, W) in [0, 1]."""
    if row.compute:
        sample.values[row.name] = row.compute(result, content, style).item()
    if row.embed:
        one, other = (row.embed(x)[0].double().cpu().numpy() for x in (result, style))
        sample.vectors[row.name] = one, other


def estimate(row: Measure, samples: Sequence[Sample], others: Mapping[str, Measure]) -> tuple[float, float, float] | None:
    """The measure over these pairs with its 95 % interval; None where it could not be computed of any."""
    own = [s for s in samples if row.name in s.values]
    if own:
        values, contents, styles = zip(*((s.values[row.name], s.content, s.style) for s in own), strict=True)
        return metrics.bootstrap(values, contents, styles)
    if value(row, samples, others) is None:
        return None

    def of(positions: Sequence[int]) -> float:
        found = value(row, [samples[i] for i in positions], others)
        return float("nan") if found is None else found

    return metrics.jackknife(of, [s.content for s in samples], [s.style for s in samples])


def value(row: Measure, samples: Sequence[Sample], others: Mapping[str, Measure]) -> float | None:
    """The measure over these pairs."""
    if row.product:
        factors = [value(others[name], samples, others) for name in row.product]
        return None if None in factors else float(np.prod([1 + f for f in factors if f is not None]))
    if row.embed:
        vectors = {(s.style, i if row.style_per_result else 0): s.vectors[row.name][1] for i, s in enumerate(samples)}
        results = [s.vectors[row.name][0] for s in samples]
        enough = min(len(vectors), len(results)) > 1
        return metrics.frechet(np.stack(results), np.stack(list(vectors.values()))) if enough else None
    own = [s.values[row.name] for s in samples if row.name in s.values]
    return sum(own) / len(own) if own else None


# ---- the table ---------------------------------------------------------------------------------------------------


def attempt(row: Measure, compute: Callable[[], Compute] | None = None, embed: Callable[[], Embedding] | None = None) -> Measure:
    """The measure with what one of the two builds; n/a with the reason if what that needs is not here."""
    try:
        return replace(row, compute=compute and compute(), embed=embed and embed())
    except (AbsentError, DiffstyleError) as error:
        return replace(row, reason=str(error))


def gram(space: Callable[[], Features]) -> Callable[[], Compute]:
    """Gram style loss of the result against the style."""

    def build() -> Compute:
        features = space()
        return lambda r, c, s: metrics.gram_loss(features(r), features(s))

    return build


def perceptual(space: Callable[[], tuple[Features, Sequence[Tensor] | None]], to_content: bool) -> Callable[[], Compute]:
    """LPIPS's distance of the result to its content or its style; without heads every channel counts the same."""

    def build() -> Compute:
        features, heads = space()
        return lambda r, c, s: metrics.lpips(features(r), features(c if to_content else s), heads)

    return build


def similarity(space: Callable[[], Embedding]) -> Callable[[], Compute]:
    """Cosine of the result's embedding with the content's."""

    def build() -> Compute:
        embed = space()
        return lambda r, c, s: metrics.cosine(embed(r), embed(c))

    return build


def probed(embed: Embedding) -> Embedding:
    """``embed``, which a file may hold, once it has taken a picture and given numbers. Raises WorkError."""
    try:
        found = embed(torch.zeros(1, 3, 64, 64))
        shape = tuple(found.shape)
    except (RuntimeError, IndexError, TypeError, ValueError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1][:100]
        raise WorkError(f"the network does not take pictures ({reason})") from error
    if len(shape) != 2 or shape[0] != 1:
        raise WorkError(f"the network gives {shape} for a picture, not (1, D)")
    if not found.isfinite().all():
        raise WorkError("the network gives numbers that are not finite")
    return embed


@dataclass(frozen=True)
class Files:
    """Networks that a command line names; None: look where they usually lie."""

    identity: Path | None = None
    lpips_heads: Path | None = None
    inception: Path | None = None
    art_inception: Path | None = None


def without_network() -> list[Measure]:
    """Measures on the pixels themselves."""
    edges = "Pearson correlation of Sobel gradient magnitudes of the grey pictures"
    grey = "grey pictures, Gaussian window of 11 pixels, sigma 1.5, population covariance"
    colours = "Hellinger distance of joint RGB histograms of 8x8x8 cells"
    return [
        Measure("edges_to_content", "more", "offline", edges, lambda r, c, s: metrics.edge_similarity(r, c)),
        Measure("edges_to_style", "less", "offline", edges, lambda r, c, s: metrics.edge_similarity(r, s)),
        Measure("ssim_to_content", "more", "offline", grey, lambda r, c, s: metrics.ssim(r, c)),
        Measure("ssim_to_style", "less", "offline", grey, lambda r, c, s: metrics.ssim(r, s)),
        Measure("histogram_to_style", "less", "offline", colours, lambda r, c, s: metrics.histogram_distance(r, s)),
        Measure("histogram_to_content", "more", "offline", colours, lambda r, c, s: metrics.histogram_distance(r, c)),
    ]


def on_lite0() -> list[Measure]:
    """Measures on EfficientNet-Lite0, whose weights come in a package; named after it, never FID or LPIPS."""
    lite0 = feature_networks.lite0
    taps = f"{LITE0}; blocks 0, 2, 4, 10, 15"
    frechet = Measure("frechet_to_styles_lite0", "less", "offline",
                      f"all results against the styles, each once; {LITE0}; 1280 numbers; no FID")  # fmt: skip
    gram_lite0 = Measure("gram_to_style_lite0", "less", "offline", f"{taps}; mean squared difference of F F^T / (C H W)")
    rows = [attempt(frechet, embed=lambda: lite0().embed), attempt(gram_lite0, gram(lambda: lite0().maps))]
    for side in ("content", "style"):
        row = Measure(f"perceptual_to_{side}_lite0", "less", "offline", f"{taps}; LPIPS's formula, every channel 1 / C; no LPIPS")
        rows.append(attempt(row, perceptual(lambda: (lite0().maps, None), side == "content")))
    return rows


def offline(model: Callable[[], Model]) -> list[Measure]:
    """What can always be measured: on pixels, on EfficientNet-Lite0, and on the diffusion model's own features."""
    filters = Measure("gram_to_style_filter_bank", "less", "offline", "colours and their gradients at three scales")
    encoder = Measure("gram_to_style_own_encoder", "less", "offline", "the diffusion model's own encoder at t = 50")
    bottleneck = Measure("own_bottleneck_to_content", "more", "offline",
                         "cosine of h, which injection writes: a check of the method, not a judge of it")  # fmt: skip
    return [
        *without_network(),
        *on_lite0(),
        attempt(filters, gram(lambda: metrics.filter_bank)),
        attempt(encoder, gram(lambda: feature_networks.own_encoder(model()))),
        attempt(bottleneck, similarity(lambda: feature_networks.own_bottleneck(model()))),
    ]


def on_faces() -> list[Measure]:
    """Photographs of faces: who, with which expression, and where the features lie, on the networks of face-api."""
    found = []
    for name, better, compare, network, how in (
        ("identity", "less", faces.identity_distance, "face_recognition", "distance of 128 numbers, 150x150; one person: < 0.6"),
        ("expression", "more", faces.expression_overlap, "face_expression", "overlap of seven probabilities, 112x112"),
        ("landmarks", "less", faces.landmark_distance, "face_landmark_68", "mean distance of 68 points by the eye span, 112x112"),
    ):
        for side in ("content", "style"):
            wanted = better if side == "content" else {"less": "more", "more": "less"}[better]
            row = Measure(f"{name}_to_{side}_faceapi", wanted, "faces", f"{how}; photographs of one upright face")
            found.append(attempt(row, comparison(network, compare, side == "content")))
    return found


def comparison(network: str, compare: Callable[[Tensor, Tensor], Tensor], to_content: bool) -> Callable[[], Compute]:
    """One of faces.py's comparisons of the result with its content or its style, once the network's weights are read."""

    def build() -> Compute:
        faces.read_weights(network)
        return lambda r, c, s: compare(r, c if to_content else s)

    return build


def paper(files: Files) -> list[Measure]:
    """The columns of the paper's table, each on the network that it names."""
    fid = Measure("fid", "less", "paper", "all results against the styles, each once; Inception-v3 of 2015-12-05, "
                  "Pillow bicubic in floats to 299x299 (clean-fid)")  # fmt: skip
    identity = Measure("identity_to_content", "more", "paper", "cosine of --identity; bilinear to 112x112, [-1, 1], no alignment")
    vgg = Measure("gram_to_style_vgg19", "less", "paper", "VGG-19 relu1_1 to relu5_1, ImageNet mean and deviation, no resizing "
                  "from 64 pixels on; mean over layers of the mean squared difference of F F^T / (C H W)")  # fmt: skip
    return [
        attempt(fid, embed=lambda: probed(feature_networks.inception(files.inception))),
        attempt(identity, similarity(lambda: probed(feature_networks.face_recogniser(files.identity)))),
        attempt(vgg, gram(feature_networks.vgg_style)),
    ]


def artfid(files: Files) -> list[Measure]:
    """ArtFID = (1 + LPIPS to the content) (1 + Frechet distance to the styles) (Wright and Ommer 2022)."""
    how = "LPIPS 0.1 on AlexNet with its learned heads, no resizing from 64 pixels on"
    rows = []
    for side in ("content", "style"):
        compute = perceptual(lambda: feature_networks.alex_lpips(files.lpips_heads), side == "content")
        rows.append(attempt(Measure(f"lpips_to_{side}", "less", "artfid", how), compute))
    art = Measure("fid_art", "less", "artfid", "all results against their styles, one a result; ArtFID's Inception, which "
                  "resizes by itself; not extrapolated to infinitely many", style_per_result=True)  # fmt: skip
    art = attempt(art, embed=lambda: probed(feature_networks.art_inception(files.art_inception)))
    product = ("lpips_to_content", "fid_art")
    reason = "; ".join(dict.fromkeys(row.reason for row in (*rows, art) if row.reason))
    whole = Measure("artfid", "less", "artfid", "(1 + lpips_to_content) (1 + fid_art)", product=product, reason=reason)
    return [*rows, art, whole]


def build(protocol: str, model: Callable[[], Model], files: Files) -> list[Measure]:
    """The measures of a protocol, or of all."""
    tables = {
        "offline": lambda: offline(model),
        "faces": on_faces,
        "paper": lambda: paper(files),
        "artfid": lambda: artfid(files),
    }
    return [row for name, table in tables.items() if protocol in (name, "all") for row in table()]
