"""When to save within an epoch; at its end a checkpoint is written anyway."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class SavePolicy:
    """By steps, by time, whichever comes first.

    Attributes:
      every_steps: save when a multiple of it is reached or passed; None: not by steps.
      every_minutes: save when so long has passed since the last save.
    """

    every_steps: int | None
    every_minutes: float

    def is_due(self, step: int, taken: int, seconds: float) -> bool:
        """Whether to save now.

        Args:
          step: steps taken since the start of the run.
          taken: how many of them in the last dispatch.
          seconds: since the last save.
        """
        every = self.every_steps
        if every is not None and step // every > (step - taken) // every:
            return True
        return seconds >= 60 * self.every_minutes
