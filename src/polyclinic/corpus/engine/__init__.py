"""Which shards there are, who runs them, and what need not be run again."""
