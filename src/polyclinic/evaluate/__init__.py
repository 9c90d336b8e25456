"""Medical scores and held-out loss per language, with intervals and chance lines."""
