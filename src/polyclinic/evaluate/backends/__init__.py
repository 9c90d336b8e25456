"""What answers requests: a local checkpoint, a server, and the store that keeps answers; all are lm-eval models."""
