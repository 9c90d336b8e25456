"""Where a dense model tells languages apart, and so where experts are worth placing."""
