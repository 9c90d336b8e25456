"""How many examples a property test draws: a third of them in the suite, all under `make soak`."""

import os


def drawn(most: int) -> int:
    """Return how many of so many examples are drawn here."""
    return most if os.environ.get("POLYCLINIC_SOAK") else -(-most // 3)
