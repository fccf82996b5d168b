"""Class weights from how often classes occur in the training data. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flexseg_errors import FlexsegError

KINDS = ("none", "inverse", "median", "effective")


def class_weights(
    kind: str,
    class_pixels: Sequence[int],
    class_examples: Sequence[int],
    *,
    beta: float = 0.999999,
    cap: float = 10.0,
) -> tuple[float, ...]:
    """One weight for each class, of mean 1 over the classes that occur.

    inverse: w_c = 1 / n_c, n_c being the pixels of the class. median: median(f) / f_c, where f_c is
    the share of the class in the examples that hold it (Eigen and Fergus 2015), so that a class
    that is rare because few examples have it does not weigh as one of small things. effective:
    (1 - beta) / (1 - beta^n_c) (Cui et al. 2019); pixels beyond about 1 / (1 - beta) of a class
    add nothing, and classes that have more weigh all the same.

    Args:
      kind: none, inverse, median or effective.
      class_pixels: pixels of each class in the training examples, [K].
      class_examples: training examples that hold each class, [K].
      beta: of effective, from 0 to less than 1.
      cap: no weight is more than this many times the smallest; at least 1.

    Returns:
      [K] weights. A class that does not occur has 1, which training never sees. () for none.

    Raises:
      FlexsegError: nothing occurs.
      ValueError: an unknown kind.
    """
    if kind == "none":
        return ()
    pixels, examples = np.asarray(class_pixels, np.float64), np.asarray(class_examples, np.float64)
    occurs = pixels > 0
    if not occurs.any():
        raise FlexsegError(
            f"train.class_weights={kind}: no pixel of the training examples has a class, all are "
            "ignored. Prepare the dataset with the --mask_kind and --label_map of its masks."
        )
    n = pixels[occurs]
    if kind == "inverse":
        weights = 1.0 / n
    elif kind == "median":
        # The pixels of an example are a common factor, which goes when the mean is brought to 1.
        share = n / examples[occurs]
        weights = np.median(share) / share
    elif kind == "effective":
        # expm1 and log1p, as beta^n is 0 or all but 1 for most n.
        weights = (1.0 - beta) / -np.expm1(n * np.log1p(beta - 1.0)) if beta else np.ones_like(n)
    else:
        raise ValueError(f"{kind} is none of {', '.join(KINDS)}.")
    weights = np.minimum(weights, cap * weights.min())
    result = np.ones_like(pixels)
    result[occurs] = weights / weights.mean()
    return tuple(float(w) for w in result)


def describe(weights: Sequence[float], names: Sequence[str]) -> str:
    """One line for the person who trains: every class with its weight."""
    return "Class weights: " + ", ".join(
        f"{name} {weight:.3g}" for name, weight in zip(names, weights, strict=True)
    )
