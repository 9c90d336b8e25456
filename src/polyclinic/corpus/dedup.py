"""Exact duplicates, and the share of documents held out; both decided by content, never by position."""

import hashlib
import unicodedata

from polyclinic.records import Document


def fingerprint(document: Document) -> bytes:
    """Return a digest of the language and the text without case, width and spacing."""
    text = unicodedata.normalize("NFKC", document.text()).casefold()
    return hashlib.sha256(f"{document.language}\n{' '.join(text.split())}".encode()).digest()


def is_held_out(group: str, share: float) -> bool:
    """Decide by a hash of the group, so that all translations of one text go the same way."""
    return _number(group) < share * 2**64


def is_validation(group: str, share: float) -> bool:
    """Decide the same for training text that is kept for validation; the two choices know nothing of each other."""
    return _number(f"validation\n{group}") < share * 2**64


def _number(text: str) -> int:
    """Return a number below 2^64 that a text has for ever."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
