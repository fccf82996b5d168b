"""What augmentation does to the look of an image's pixels, not to their place; never to masks.

Each takes and gives an image uint8 [H, W, C]; what would fall outside of 0..255 is clipped.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from pipelines.preprocessing import Preprocessing


def sharpen(image: np.ndarray, k: float) -> np.ndarray:
    """Applies a 3x3 kernel with 1 + 8 k in the centre and -k around it."""
    return Preprocessing(sharpen=k).image(image)


def stretch(image: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Makes every intensity x into alpha x + beta."""
    # Not the absolute value, as a dataset's contrast: below a beta of 0, black would turn gray.
    table = np.clip(np.rint(alpha * np.arange(256) + beta), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table).reshape(image.shape)  # OpenCV drops a single channel


def gamma(image: np.ndarray, gamma: float) -> np.ndarray:
    """Makes every intensity x into 255 (x / 255)^gamma: darker above 1, lighter below."""
    return Preprocessing(gamma=gamma).image(image)


def invert(image: np.ndarray) -> np.ndarray:
    """Makes every intensity x into 255 - x."""
    return Preprocessing(invert=True).image(image)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Smooths by a Gaussian of `sigma` pixels, out to 3 sigma, the image reflected at its edges."""
    side = 2 * math.ceil(3 * sigma) + 1
    smooth = cv2.GaussianBlur(
        image, (side, side), sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT_101
    )
    return smooth.reshape(image.shape)  # OpenCV drops a single channel


def noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Adds normally distributed noise of `sigma` intensities, to each channel its own."""
    noisy = rng.standard_normal(image.shape, np.float32)
    noisy *= np.float32(sigma)
    noisy += image
    return np.clip(np.rint(noisy, out=noisy), 0, 255, out=noisy).astype(np.uint8)
