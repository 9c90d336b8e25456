"""Keep libraries from talking: their logs may hold questions and answers, and one line is what a fault gets."""

import contextlib
import io
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_lm_eval() -> Iterator[None]:
    """Keep lm-eval's log and progress bars off the screen."""
    with silenced("lm_eval"), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep off the screen what the client of the hub says while it tries again."""
    with silenced("huggingface_hub"), silenced("datasets"), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def silenced(name: str) -> Iterator[None]:
    """Let a library's loggers say nothing for a while."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
