"""Every loss is its formula: by loops over pixels, by scikit-learn, and by other libraries."""

import numpy as np
import pytest
import scipy.ndimage
import sklearn.metrics
import tensorflow as tf

from pipelines.label_map import IGNORE_ID
from train import losses, overlap_losses, shape_losses

CLASS_WEIGHTS = (0.5, 1.5, 3.0)


def example(outputs, *, batch=3, seed=0, ignored=0.1):
    """Logits [B, 13, 14, outputs] float64 and labels [B, 13, 14]; image 1 lacks class 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (batch, 13, 14, outputs))
    blocks = rng.integers(0, max(2, outputs), (batch, 5, 7))
    labels = blocks.repeat(3, 1).repeat(2, 2)[:, :13].astype(np.uint8)
    labels[1][labels[1] == 1] = 0
    labels[rng.random(labels.shape) < ignored] = IGNORE_ID
    return logits, labels


def value_of(text, logits, labels, class_weights=()):
    loss = losses.parse(text, class_weights)
    return float(loss.value(loss.sums(tf.constant(logits), tf.constant(labels))))


class Seen:
    """Probabilities p, truth g [B, H, W, K] and valid [B, H, W], by the definition."""

    def __init__(self, logits, labels):
        self.sigmoid = logits.shape[-1] == 1
        if self.sigmoid:
            logits = np.concatenate([np.zeros_like(logits), logits], -1)
        e = np.exp(logits - logits.max(-1, keepdims=True))
        self.p = e / e.sum(-1, keepdims=True)
        self.K = self.p.shape[-1]
        self.labels, self.valid = labels, labels < self.K
        self.g = (labels[..., None] == np.arange(self.K)).astype(float)
        self.images = [b for b in range(len(labels)) if self.valid[b].any()]

    def pixels(self):
        """(p [K], true class) of all pixels that count."""
        return [(self.p[i], self.labels[i]) for i in np.ndindex(*self.valid.shape) if self.valid[i]]

    def channels(self):
        """Those that old losses look at: p and g [pixels that count, channels]."""
        first = 1 if self.sigmoid else 0
        return self.p[self.valid][:, first:], self.g[self.valid][:, first:]


def cross_entropy(seen, weights=None, smoothing=0.0):
    weights = weights or [1.0] * seen.K
    total = above = 0.0
    for p, y in seen.pixels():
        above += (1 - smoothing) * weights[y] * -np.log(p[y])
        above += smoothing / seen.K * sum(weights[c] * -np.log(p[c]) for c in range(seen.K))
        total += weights[y]
    return above / total


def binary_cross_entropy(seen, weights=None):
    weights = weights or [1.0] * seen.K
    total = above = 0.0
    for p, y in seen.pixels():
        terms = [-np.log(p[c] if c == y else 1 - p[c]) for c in range(seen.K)]
        above += weights[y] * np.mean(terms)
        total += weights[y]
    return above / total


def focal(seen, gamma=2.0, weights=None):
    weights = weights or [1.0] * seen.K
    above = sum(weights[y] * (1 - p[y]) ** gamma * -np.log(p[y]) for p, y in seen.pixels())
    return above / sum(weights[y] for _, y in seen.pixels())


def pools(seen, per_image):
    """Which pixels are summed together: those of each image, or all."""
    if per_image:
        return [(seen.p[b][seen.valid[b]], seen.g[b][seen.valid[b]]) for b in seen.images]
    return [(seen.p[seen.valid], seen.g[seen.valid])]


def overlap(seen, score, per_image=False, background=False):
    """One minus a score(p, g) of the pixels of each class, in the mean over classes and pools."""
    first = 0 if background else 1
    return np.mean(
        [
            np.mean([1 - score(p[:, c], g[:, c]) for c in range(first, seen.K)])
            for p, g in pools(seen, per_image)
        ]
    )


def dice_score(p, g, s=1.0):
    return (2 * (p * g).sum() + s) / (p.sum() + g.sum() + s)


def jaccard_score(p, g, s=1.0):
    return ((p * g).sum() + s) / (p.sum() + g.sum() - (p * g).sum() + s)


def tversky_score(p, g, a=0.3, b=0.7, s=1.0):
    hit = (p * g).sum()
    return (hit + s) / (hit + a * (p * (1 - g)).sum() + b * ((1 - p) * g).sum() + s)


def generalized_dice(seen, per_image=False, smooth=1.0, background=True):
    found = []
    for p, g in pools(seen, per_image):
        classes = range(0 if background else 1, seen.K)
        sizes = [g[:, c].sum() for c in classes]
        scale = min(n for n in sizes if n) ** 2
        largest = max(1 / n**2 for n in sizes if n)
        weights = [scale * (1 / n**2 if n else largest) for n in sizes]
        hit = sum(w * (p[:, c] * g[:, c]).sum() for w, c in zip(weights, classes, strict=True))
        all_ = sum(w * (p[:, c] + g[:, c]).sum() for w, c in zip(weights, classes, strict=True))
        found.append(1 - (2 * hit + smooth) / (all_ + smooth))
    return np.mean(found)


def lovasz(seen, background=True):
    """By the definition: the set function 1 - |G without the wrong| / |G with the wrong|."""
    images = []
    for p, g in pools(seen, per_image=True):
        classes = []
        for c in range(0 if background else 1, seen.K):
            truth = set(np.flatnonzero(g[:, c]))
            if not truth:
                continue
            errors = abs(g[:, c] - p[:, c])
            wrong, before, total = set(), 0.0, 0.0
            for i in np.argsort(-errors):
                wrong.add(i)
                now = 1 - len(truth - wrong) / len(truth | wrong)
                total += errors[i] * (now - before)
                before = now
            classes.append(total)
        if classes:
            images.append(np.mean(classes))
    return np.mean(images)


def similarity(seen, channels):
    """Mean SSIM over the windows whose middle counts, of the pixels in them that count."""
    offset = np.arange(11) - 5
    line = np.exp(-(offset**2) / (2 * 1.5**2))
    kernel = np.outer(line, line)
    found = []
    for b in range(len(seen.p)):
        for y, x in np.ndindex(13 - 10, 14 - 10):
            if not seen.valid[b, y + 5, x + 5]:
                continue
            here = np.s_[b, y : y + 11, x : x + 11]
            w = kernel * seen.valid[here]
            w = w / w.sum()
            for c in channels:
                p, g = seen.p[here][..., c], seen.g[here][..., c]
                mp, mg = (w * p).sum(), (w * g).sum()
                vp, vg = (w * (p - mp) ** 2).sum(), (w * (g - mg) ** 2).sum()
                cov = (w * (p - mp) * (g - mg)).sum()
                found.append(
                    (2 * mp * mg + 1e-4)
                    * (2 * cov + 9e-4)
                    / ((mp**2 + mg**2 + 1e-4) * (vp + vg + 9e-4))
                )
    return np.mean(found)


CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)


def opened(x):
    thin = scipy.ndimage.grey_erosion(x, footprint=CROSS, mode="nearest")
    return scipy.ndimage.grey_dilation(thin, size=(3, 3), mode="nearest"), thin


def skeleton(x, iterations):
    """Repeating the border's pixels changes neither the least nor the most of a neighbourhood."""
    result = np.maximum(x - opened(x)[0], 0)
    for _ in range(iterations):
        x = opened(x)[1]
        rest = np.maximum(x - opened(x)[0], 0)
        result = result + np.maximum(rest - result * rest, 0)
    return result


def cldice(seen, iterations=10, s=1.0):
    found = []
    for c in range(1, seen.K):
        sums = np.zeros(4)
        for b in range(len(seen.p)):
            p, g = seen.p[b, ..., c] * seen.valid[b], seen.g[b, ..., c]
            sp, sg = skeleton(p, iterations), skeleton(g, iterations)
            sums += [(sp * g).sum(), sp.sum(), (sg * p).sum(), sg.sum()]
        precision, sensitivity = (sums[0] + s) / (sums[1] + s), (sums[2] + s) / (sums[3] + s)
        found.append(1 - 2 * precision * sensitivity / (precision + sensitivity))
    return np.mean(found)


def has_border(region):
    return region.any() and not region.all()


def boundary(seen):
    edt = scipy.ndimage.distance_transform_edt
    total = 0.0
    for b, c in np.ndindex(len(seen.p), seen.K):
        region = seen.g[b, ..., c] > 0
        if c and has_border(region):
            phi = np.where(region, 1 - edt(region), edt(~region))
            total += (phi * seen.p[b, ..., c])[seen.valid[b]].sum()
    return total / seen.valid.sum() / (seen.K - 1)


def hausdorff(seen, alpha=2.0):
    edt = scipy.ndimage.distance_transform_edt
    total = 0.0
    for b, c in np.ndindex(len(seen.p), seen.K):
        p, g = seen.p[b, ..., c] * seen.valid[b], seen.g[b, ..., c]
        cost = np.zeros(p.shape)
        for region in (p > 0.5, g > 0.5):
            if has_border(region):
                cost += (edt(region) + edt(~region)) ** alpha
        if c:
            total += ((p - g) ** 2 * cost)[seen.valid[b]].sum()
    return total / seen.valid.sum() / (seen.K - 1)


def old_bce(seen):
    p, t = seen.channels()
    return np.mean(-t * np.log(p) - (1 - t) * np.log(1 - p))


def old_dice(seen):
    p, t = seen.channels()
    return 1 - (2 * (t * p).sum() + 1) / (t.sum() + p.sum() + 1)


def old_iou(seen):
    p, t = seen.channels()
    return 1 - (t * p).sum() / (t + p - t * p).sum()


def old_dice_multiclass(seen):
    first, found = 1 if seen.sigmoid else 0, []
    for b in seen.images:
        p, t = seen.p[b][seen.valid[b]][:, first:], seen.g[b][seen.valid[b]][:, first:]
        found.append((2 * (t * p).sum() + 1) / (t.sum() + p.sum() + 1))
    return 1 - np.mean(found)


def old_similarity(seen):
    return similarity(seen, range(1 if seen.sigmoid else 0, seen.K))


EXPECTED = {
    "ce": cross_entropy,
    "ce(smoothing=0.2)": lambda s: cross_entropy(s, smoothing=0.2),
    "bce": binary_cross_entropy,
    "focal": focal,
    "focal(gamma=0.5)": lambda s: focal(s, 0.5),
    "dice": lambda s: overlap(s, dice_score),
    "dice(smooth=0,background=true)": lambda s: overlap(
        s, lambda p, g: dice_score(p, g, 0), background=True
    ),
    "dice(per_image=true)": lambda s: overlap(s, dice_score, per_image=True),
    "jaccard": lambda s: overlap(s, jaccard_score),
    "jaccard(per_image=true,smooth=2)": lambda s: overlap(
        s, lambda p, g: jaccard_score(p, g, 2), per_image=True
    ),
    "tversky": lambda s: overlap(s, tversky_score),
    "tversky(false_positives=2,false_negatives=0.1,background=true)": lambda s: overlap(
        s, lambda p, g: tversky_score(p, g, 2, 0.1), background=True
    ),
    "focal_tversky": lambda s: overlap(s, lambda p, g: 1 - (1 - tversky_score(p, g)) ** 0.75),
    "focal_tversky(gamma=2,per_image=true)": lambda s: overlap(
        s, lambda p, g: 1 - (1 - tversky_score(p, g)) ** 0.5, per_image=True
    ),
    "generalized_dice": generalized_dice,
    "generalized_dice(per_image=true,smooth=0)": lambda s: generalized_dice(s, True, 0),
    "generalized_dice(background=false)": lambda s: generalized_dice(s, background=False),
    "lovasz": lovasz,
    "lovasz(background=false)": lambda s: lovasz(s, background=False),
    "ssim": lambda s: 1 - similarity(s, range(1, s.K)),
    "cldice": cldice,
    "cldice(iterations=1,smooth=0.1)": lambda s: cldice(s, 1, 0.1),
    "boundary": boundary,
    "hausdorff": hausdorff,
    "hausdorff(alpha=0.5)": lambda s: hausdorff(s, 0.5),
    "categorical_crossentropy": cross_entropy,
    "binary_crossentropy": old_bce,
    "dice_loss": old_dice,
    "dice_loss_multiclass": old_dice_multiclass,
    "iou_loss": old_iou,
    "jacard_loss": old_iou,
    "bce_dice_loss": lambda s: (old_bce(s) + old_dice(s)) / 2,
    "bce_iou_loss": lambda s: (old_bce(s) + old_iou(s)) / 2,
    "basnet_hybrid_loss": lambda s: (old_bce(s) + 1 - old_similarity(s) + old_iou(s)) / 3,
    "0.3*ce+0.7*dice": lambda s: 0.3 * cross_entropy(s) + 0.7 * overlap(s, dice_score),
}


@pytest.mark.parametrize("text", EXPECTED)
@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_a_loss_is_its_formula_over_the_pixels_that_count(text, outputs):
    logits, labels = example(outputs)
    found = value_of(text, logits, labels)
    assert found == pytest.approx(EXPECTED[text](Seen(logits, labels)), rel=1e-7)
    assert value_of(text, logits.astype(np.float32), labels) == pytest.approx(found, rel=2e-5)


def test_every_loss_has_a_formula_here():
    assert set(losses.LOSSES) <= set(EXPECTED)


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("ce", cross_entropy),
        ("ce(smoothing=0.1)", lambda s, w: cross_entropy(s, w, 0.1)),
        ("bce", binary_cross_entropy),
        ("focal", lambda s, w: focal(s, 2.0, w)),
    ],
)
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_weight_of_a_class_is_that_of_its_pixels(text, formula, outputs):
    logits, labels = example(outputs)
    weights = CLASS_WEIGHTS[: max(2, outputs)]
    expected = formula(Seen(logits, labels), list(weights))
    assert value_of(text, logits, labels, weights) == pytest.approx(expected, rel=1e-7)


def test_cross_entropy_is_that_of_scikit_learn():
    logits, labels = example(3)
    seen = Seen(logits, labels)
    truth, p = labels[seen.valid], seen.p[seen.valid]
    for weights in ((), CLASS_WEIGHTS):
        by_pixel = np.array(weights)[truth] if weights else None
        expected = sklearn.metrics.log_loss(truth, p, sample_weight=by_pixel, labels=[0, 1, 2])
        assert value_of("ce", logits, labels, weights) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("dice(smooth=0)", sklearn.metrics.f1_score),
        ("jaccard(smooth=0)", sklearn.metrics.jaccard_score),
    ],
)
def test_of_hard_predictions_overlap_is_that_of_scikit_learn(text, score, absent):
    """A class that is in neither truth nor prediction is no loss."""
    rng = np.random.default_rng(3)
    labels = rng.choice([0, 1, 2, IGNORE_ID], (2, 9, 9)).astype(np.uint8)
    guess = rng.integers(0, 3, labels.shape)
    if absent:
        labels[labels == 2] = 0
        guess[guess == 2] = 1
    logits = np.where(guess[..., None] == np.arange(3), 200.0, -200.0).astype(np.float32)
    valid = labels < 3
    for classes, background in (([1, 2], "false"), ([0, 1, 2], "true")):
        expected = 1 - score(
            labels[valid], guess[valid], labels=classes, average="macro", zero_division=1.0
        )
        found = value_of(text.replace(")", f",background={background})"), logits, labels)
        assert found == pytest.approx(expected, rel=1e-6)


def fixed_tensors():
    """torch.manual_seed(0); randn(2, 3, 16, 16), randint(0, 3, (2, 1, 16, 16)), channels last.

    The generator is the Mersenne Twister of NumPy; normal numbers come from its lowest 24 bits by
    the Box-Muller transform, in groups of eight and eight.
    """
    twister = np.random.RandomState(0)
    bits = twister.randint(0, 2**32, 2 * 3 * 16 * 16, dtype=np.uint64) & 0xFFFFFF
    u = (bits * 2.0**-24).reshape(-1, 2, 8)
    radius, angle = np.sqrt(-2 * np.log(1 - u[:, 0])), 2 * np.pi * u[:, 1]
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(2, 3, 16, 16)
    y = twister.randint(0, 2**32, 2 * 16 * 16, dtype=np.uint64) % 3
    return x.transpose(0, 2, 3, 1), y.reshape(2, 16, 16).astype(np.uint8)


@pytest.mark.parametrize(
    ("text", "figure"),
    [
        # MONAI 1.6.1; its sums are over each image unless batch=True.
        ("dice(per_image=true,background=true,smooth=1e-5)", 0.65914768),
        ("dice(smooth=1e-5)", 0.65355814),
        ("ce+dice(per_image=true,background=true,smooth=1e-5)", 2.04066157),
        ("tversky(per_image=true,background=true,smooth=1e-5)", 0.65882617),
        ("tversky(smooth=1e-5)", 0.65395880),
        ("jaccard(per_image=true,background=true,smooth=1e-5)", 0.79445046),
        ("focal", 3 * 0.30268836),  # there the mean over classes too, of which one is not 0
        ("generalized_dice(smooth=0)", 0.66081488),
        ("generalized_dice(smooth=0,per_image=true)", 0.66065645),
        ("generalized_dice(smooth=0,background=false)", 0.65556705),
        ("hausdorff", 0.7358347),
        ("hausdorff(alpha=1)", 0.6142567),
        # segmentation-models-pytorch 0.6.0
        ("dice(background=true,smooth=0)", 0.659156),
        ("jaccard(background=true,smooth=0)", 0.794499),
        # PyTorch 2.13
        ("ce", 1.3815138),
        ("ce(smoothing=0.1)", 1.3832704),
    ],
)
def test_figures_of_other_libraries_on_fixed_tensors(text, figure):
    assert value_of(text, *fixed_tensors()) == pytest.approx(figure, abs=6e-7)


def test_weighted_figures_of_pytorch_on_fixed_tensors():
    x, y = fixed_tensors()
    weights = (0.5, 1.0, 2.0)
    assert value_of("ce", x, y, weights) == pytest.approx(1.3841646, abs=5e-7)
    assert value_of("ce(smoothing=0.1)", x, y, weights) == pytest.approx(1.3769766, abs=5e-7)


def test_lovasz_of_two_images_in_one_is_the_figure_of_segmentation_models():
    """There, the pixels of a batch are sorted together."""
    x, y = fixed_tensors()
    one = value_of("lovasz", x.reshape(1, 32, 16, 3), y.reshape(1, 32, 16))
    assert one == pytest.approx(0.700191, abs=6e-7)


@pytest.mark.parametrize(
    ("iterations", "figures"),
    [(1, (244.732300, 93.107025)), (3, (255.348389, 96.813370)), (10, (259.365234, 97.940567))],
)
def test_the_soft_skeleton_is_that_of_monai(iterations, figures):
    x, _ = fixed_tensors()
    found = shape_losses.soft_skeleton(tf.nn.softmax(tf.constant(x)), iterations).numpy()
    np.testing.assert_allclose([found.sum(), (found**2).sum()], figures, rtol=1e-6)


def test_the_skeleton_of_a_bar_is_its_middle_line():
    bar = np.zeros((1, 11, 30, 1))
    bar[0, 3:8, 5:25] = 1
    found = shape_losses.soft_skeleton(tf.constant(bar), 10).numpy()[0, ..., 0]
    np.testing.assert_array_equal(found[5, 8:22], 1)
    assert not found[[0, 1, 2, 8, 9, 10]].any()
    assert not found[[4, 6], 8:22].any()


def test_without_ignored_pixels_similarity_is_that_of_tensorflow():
    logits, labels = example(3, ignored=0)
    seen = Seen(logits, labels)
    expected = 1 - tf.image.ssim(seen.p[..., 1:], seen.g[..., 1:], 1.0).numpy().mean()
    assert value_of("ssim", logits, labels) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("height", "width"), [(4, 20), (13, 1), (1, 1)])
def test_similarity_has_smaller_windows_in_smaller_images(height, width):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (2, height, width)).astype(np.uint8)
    right = np.where(labels[..., None] == np.arange(2), 40.0, -40.0)
    assert value_of("ssim", right, labels) == pytest.approx(0, abs=1e-6)
    assert 0.5 < value_of("ssim", -right, labels) <= 2


def test_soft_dice_is_known_by_hand():
    """Two pixels, class 1 at even odds on both, true on one: 1 - (2 * 0.5 + 1) / (1 + 1 + 1)."""
    found = value_of("dice", np.zeros((1, 1, 2, 2)), np.array([[[0, 1]]], np.uint8))
    assert found == pytest.approx(1 - 2 / 3)


@pytest.mark.parametrize("text", ["dice", "jaccard", "tversky", "focal_tversky", "ssim", "cldice"])
def test_the_background_is_left_out(text):
    """Perfect on the background and blind to the rest is no better than its share of the rest."""
    labels = np.zeros((1, 20, 20), np.uint8)
    labels[0, 9, 5:15] = 1
    logits = np.zeros((1, 20, 20, 2))
    logits[..., 0] = 50
    found, shown = (value_of(t, logits, labels) for t in (text, "dice_loss"))
    assert shown < 0.03, "the old loss is all but content"
    assert found > (0.25 if text == "ssim" else 0.8)


def test_false_positives_and_false_negatives_are_not_mixed_up():
    labels = np.zeros((1, 4, 4), np.uint8)
    labels[0, :2] = 1
    too_much, too_little = np.full((1, 4, 4, 1), 40.0), np.full((1, 4, 4, 1), -40.0)
    too_much[0, 3] = too_little[0, 0] = -40.0
    too_little[0, 0] = 40.0
    for kind in (overlap_losses.Tversky, overlap_losses.FocalTversky):
        dear = kind(false_positives=5, false_negatives=0)
        cheap = kind(false_positives=0, false_negatives=5)
        for loss, logits, wrong in (
            (dear, too_much, True),
            (dear, too_little, False),
            (cheap, too_much, False),
            (cheap, too_little, True),
        ):
            value = loss.value(loss.sums(tf.constant(logits), labels)).numpy()
            assert (value > 0.1) == wrong, (kind, value)
            assert wrong or value == pytest.approx(0, abs=1e-9)
