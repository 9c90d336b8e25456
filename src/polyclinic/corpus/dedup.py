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
    first = hashlib.sha256(group.encode()).digest()[:8]
    return int.from_bytes(first, "big") < share * 2**64
