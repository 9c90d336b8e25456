"""Which expert serves which language, layer by layer."""
