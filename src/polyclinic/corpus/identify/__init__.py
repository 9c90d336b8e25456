"""The language and script of a text, against what its record claims."""
