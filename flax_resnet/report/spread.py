"""Mean, deviation and confidence interval of a few values, or of a share."""

import dataclasses
import math
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Spread:
    """Fractions of several seeds, such as accuracies.

    Attributes:
      mean: of the values.
      std: sample standard deviation (n - 1); None for a single value.
      count: n.
    """

    mean: float
    std: float | None
    count: int

    def __str__(self) -> str:
        if self.std is None:
            return f"{self.mean:.2%}"
        return f"{self.mean:.2%} ± {self.std:.2%}"

    @property
    def standard_error(self) -> float | None:
        """Of the mean; None for a single value."""
        return None if self.std is None else self.std / math.sqrt(self.count)

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """The interval around the mean, by Student's t distribution; None for a single value.

        It ends at 0 and 1, as fractions do.
        """
        if self.standard_error is None:
            return None
        from scipy.stats import t  # here: it takes a second to import

        half = float(t.ppf((1 + confidence) / 2, self.count - 1)) * self.standard_error
        return max(0.0, self.mean - half), min(1.0, self.mean + half)


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of one or more values."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), std, len(values))


def share_interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval around count / total, such as an accuracy, by Wilson's score (1927)."""
    from scipy.stats import binomtest

    found = binomtest(count, total).proportion_ci(confidence, "wilson")
    return float(found.low), float(found.high)
