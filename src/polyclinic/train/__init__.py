"""Checkpoint and shards in, trained checkpoint out; base models too."""
