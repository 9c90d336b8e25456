"""What an evaluation found, as sections of a page and as Markdown."""
