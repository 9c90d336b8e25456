"""How good a text is: measures, limits, percentiles of a language."""
