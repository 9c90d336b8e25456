"""Exam items in training text."""
