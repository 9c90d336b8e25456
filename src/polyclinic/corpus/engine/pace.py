"""How fast a phase goes and how long it still takes, for whoever watches."""

import time
from collections.abc import Sequence

from polyclinic.corpus.engine.executor import Attempt
from polyclinic.progress import Progress


class Pace:
    """A Report of an executor: tells how many tasks are done, bytes a second and the time left.

    Bytes that a former run has finished count as done, but not as work of this one.
    """

    def __init__(self, progress: Progress, what: str, sizes: Sequence[int]) -> None:
        self._progress, self._what, self._sizes = progress, what, sizes
        self._left, self._worked, self._done = sum(sizes), 0, 0
        self._began = time.monotonic()

    def __call__(self, number: int, attempt: Attempt) -> None:
        """Take a task as ended."""
        self._done += 1
        self._left -= self._sizes[number]
        self._worked += self._sizes[number] * attempt.did
        self._progress.advance(self._done, len(self._sizes), self._note(time.monotonic() - self._began))

    def _note(self, seconds: float) -> str:
        rate = self._worked / max(seconds, 1e-9)
        if not rate:
            return self._what
        left = f", {shown(self._left / rate)} left" if self._left else ""
        return f"{self._what}, {rate / 1e6:.1f} MB/s{left}"


def shown(seconds: float) -> str:
    """Return a time as people say it: seconds, then minutes, then hours."""
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"  # noqa: PLR2004
