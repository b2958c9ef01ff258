"""The histograms of Figure 1."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 200  # over scores from 0 to 1


@dataclass(frozen=True)
class Densities:
    """How many (anchor, class) scores of foreground and of background fall in each of BINS bins."""

    foreground: npt.NDArray[np.int64]
    background: npt.NDArray[np.int64]
