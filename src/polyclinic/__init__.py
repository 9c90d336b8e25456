"""Polyclinic: dense language models into multilingual medical mixtures of family experts."""

__version__ = "0.1.0"
