"""What a training is told from outside while it runs, and what it tells."""

from __future__ import annotations


class Stopped(BaseException):
    """A training has ended before its horizon because it was told to; its checkpoint is on disk.

    No `Exception`: nothing has failed, and nobody should take it for a failure.
    """


class Supervision:
    """Leaves a training alone; a subclass may stop it, and hears how far it is."""

    @property
    def stop_requested(self) -> bool:
        """Whether to save a checkpoint at the next batch boundary, and stop."""
        return False

    def reached(self, epoch: float) -> None:
        """Hear how many epochs are done, with a fraction within one; at first, from where the training goes on."""

    def check(self) -> None:
        """Make sure that what is about to be saved is this process's to save.

        Raises:
            Stopped: Another process has gone on with it.
        """

    @property
    def interruptions(self) -> int:
        """How often the training was interrupted before."""
        return 0

    @property
    def epochs_repeated(self) -> float:
        """How many epochs were computed a second time for that."""
        return 0.0


ALONE = Supervision()
"""Nobody outside."""
