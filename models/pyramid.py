"""What the configs of networks of halving levels, U-Nets above all, have in common."""

from __future__ import annotations

from flexseg_errors import FlexsegError


class Pyramid:
    """Filters, biases and sizes of a network whose every level halves the one above.

    A config that is one has the knobs below, and may say otherwise of any of what follows.
    """

    base_filters: int
    levels: int
    normalization: str

    def filters(self, level: int) -> int:
        """The channels of that level."""
        return self.base_filters * 2**level

    @property
    def conv_bias(self) -> bool:
        """Whether convolutions have a bias: not where the normalization takes it away again.

        Batch and instance normalization subtract each channel's mean, and with it any constant.
        """
        return self.normalization not in ("batch", "instance")

    @property
    def size_divisor(self) -> int:
        """What an image's sides must be multiples of, in pixels: one halving per level."""
        return 2 ** (self.levels - 1)

    @property
    def size_minimum(self) -> int:
        """The least side of an image, in pixels.

        Instance normalization makes a map of one pixel constant, so it needs two.
        """
        return self.size_divisor * (2 if self.normalization == "instance" else 1)

    def check_supervision(self, wanted: bool) -> None:
        """Raises where deep supervision is wanted of a decoder that has a single level."""
        if wanted and self.levels < 3:
            raise FlexsegError(
                "deep_supervision needs two decoder levels, so levels of at least 3, not "
                f"{self.levels}."
            )
