"""Documents to tokens to packs, and how often each appears."""
