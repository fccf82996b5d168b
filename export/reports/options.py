"""What `flexseg report` was asked for beside its paths."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Options:
    """The choices that the pages share.

    Attributes:
      pictures: of a dataset how many pictures its contact sheet has, of a run how many of the best
        and how many of the worst images; 0 for none, None for as many as that page shows of itself.
      data: where a run's dataset lies now; "" for where the run says.
    """

    pictures: int | None = None
    data: str = ""
