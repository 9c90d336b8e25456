"""Tables of shares that several measures start from."""

import numpy as np

from polyclinic.analyse.tally import FloatArray, IntArray, Tally


def divided(part: IntArray | FloatArray, whole: IntArray | FloatArray) -> FloatArray:
    """Return part / whole, 0 where the whole is 0."""
    there = np.broadcast_to(whole > 0, np.broadcast_shapes(part.shape, whole.shape))
    return np.where(there, part / np.where(whole > 0, whole, 1), 0.0)


def by_language(tally: Tally, counts: IntArray) -> IntArray:
    """Add counts of buckets [bucket, ...] up to counts of languages [language, ...]."""
    out = np.zeros((len(tally.languages), *counts.shape[1:]), dtype=np.int64)
    np.add.at(out, tally.bucket_language, counts)
    return out


def picks_GLE(tally: Tally) -> IntArray:
    """Return the picks of each language: tokens with the expert among their K picks."""
    return by_language(tally, tally.picks_BLE)


def tokens_G(tally: Tally) -> IntArray:
    """Return the tokens of each language."""
    return by_language(tally, tally.tokens_B)


def token_shares_GLE(tally: Tally) -> FloatArray:
    """Return the share of a language's tokens that have the expert among their picks; rows sum to K."""
    return divided(picks_GLE(tally), tokens_G(tally)[:, None, None])


def entropy(counts: IntArray | FloatArray) -> FloatArray:
    """Return the entropy in nats of counts or shares over the last axis; 0 where all are 0."""
    shares = divided(counts, counts.sum(-1, keepdims=True))
    return np.asarray(-(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(-1))
