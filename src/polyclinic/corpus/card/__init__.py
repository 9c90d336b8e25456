"""What is in a corpus, as JSON, page and dataset card."""
