"""When a loss goes astray for good: what is no number, has blown up, or has lost all it had gained.

Single steps say little: batches of two examples give losses that differ tenfold. So the loss is
smoothed, and has to be astray for long. Differences are compared, not quotients, since some losses
are negative.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

_WINDOW = 50  # steps of the first mean, and the horizon of the smoothed loss
_BLOWN_UP = 9.0  # of the first losses' size, above their mean
_BLOWN_UP_STEPS = 200  # warm-up onto a rate that is just bearable comes back within as many
_GAIN = 0.5  # of the first losses' size: less is no gain that could be lost
_LOST = 0.9  # of the gain
_LOST_STEPS = 500


@dataclasses.dataclass(frozen=True)
class Trend:
    """What has to be known of the losses so far; begins with none.

    Attributes:
      steps: how many there were.
      first: mean of the first 50.
      size: mean of their sizes, which is the same where all are positive.
      smooth: from there on, moved by a 50th of the way to every loss.
      best: the least of it.
      blown_up: for how many steps it has been above 10 times the first (for positive losses).
      lost: for how many steps it has been back, but for a tenth, where it began, after having
        halved (for positive losses).
    """

    steps: int = 0
    first: float = 0.0
    size: float = 0.0
    smooth: float = 0.0
    best: float = 0.0
    blown_up: int = 0
    lost: int = 0

    def after(self, loss: float) -> Trend:
        """The trend with one loss more, which must be a number."""
        steps = self.steps + 1
        if steps <= _WINDOW:
            first = self.first + (loss - self.first) / steps
            size = self.size + (abs(loss) - self.size) / steps
            return Trend(steps, first, size, first, first)
        smooth = self.smooth + (loss - self.smooth) / _WINDOW
        best = min(self.best, smooth)
        gain = self.first - best
        blown_up = smooth > self.first + _BLOWN_UP * self.size
        lost = gain > _GAIN * self.size and smooth > best + _LOST * gain
        return Trend(
            steps,
            self.first,
            self.size,
            smooth,
            best,
            self.blown_up + 1 if blown_up else 0,
            self.lost + 1 if lost else 0,
        )

    @property
    def astray_for(self) -> int:
        """For how many steps the loss has been astray, where that is too long; else 0."""
        if self.blown_up >= _BLOWN_UP_STEPS:
            return self.blown_up
        return self.lost if self.lost >= _LOST_STEPS else 0


def follow(trend: Trend, losses: Iterable[float]) -> tuple[Trend, int | None]:
    """Takes in the losses of some steps.

    Returns:
      (trend, index): the trend up to the first step that is the end of it, and that step's index
      within `losses`: its loss is no number, or the trend is astray. None where there is none.
    """
    for index, loss in enumerate(losses):
        if not math.isfinite(loss):
            return trend, index
        trend = trend.after(float(loss))
        if trend.astray_for:
            return trend, index
    return trend, None
