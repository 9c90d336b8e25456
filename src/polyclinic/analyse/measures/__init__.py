"""Pure functions of a tally: what its counts say about routing, and what chance would say."""
