"""How differently languages are routed: divergences, their tree, and the family tree beside it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from polyclinic.analyse.measures.shares import divided, entropy, picks_GLE, tokens_G
from polyclinic.analyse.tally import FloatArray, Tally
from polyclinic.clades import shared_depth
from polyclinic.languages import all_languages

ENGLISH = "en"
FEWEST_LANGUAGES = 3  # from three on distances can correlate


class Mantel(NamedTuple):
    """A correlation of distances and its p-value over permuted languages."""

    correlation: float
    p_value: float


def divergences(counts_GE: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the Jensen-Shannon divergence of every two rows in bits, and the same over the entropy of their mean.

    The first lies between 0 and 1 (Lin 1991, IEEE Trans. Inf. Theory 37:145-151); the second too, and is
    1 where the rows share no expert and use one each.
    """
    shares = divided(counts_GE, counts_GE.sum(-1, keepdims=True))
    own = entropy(shares)
    middle = entropy((shares[:, None] + shares[None]) / 2)
    nats = np.maximum(0.0, middle - (own[:, None] + own[None]) / 2)
    np.fill_diagonal(nats, 0.0)
    return nats / np.log(2), divided(nats, middle)


def tree_distances(codes: Sequence[str]) -> FloatArray:
    """Return distances in the family tree: 1 - 2 * shared steps / steps of both lineages; 1 is unrelated.

    Codes are of the table of languages; a language is at distance 0 from itself.
    """
    rows = [all_languages()[code] for code in codes]
    out = np.array([[1 - 2 * shared_depth(a, b) / (len(a.lineage) + len(b.lineage)) for b in rows] for a in rows])
    np.fill_diagonal(out, 0.0)
    return out


def linkage(distances_GG: FloatArray) -> FloatArray:
    """Return the average-linkage tree of distances in scipy's form: (left, right, height, size) a merge."""
    return np.asarray(hierarchy.linkage(squareform(distances_GG, checks=False), "average"))


def cophenetic(distances_GG: FloatArray) -> FloatArray:
    """Return the height at which every two rows meet in the average-linkage tree."""
    return np.asarray(squareform(hierarchy.cophenet(linkage(distances_GG))))


def mantel(one_GG: FloatArray, other_GG: FloatArray, shuffles: int, seed: int) -> Mantel | None:
    """Correlate distances; languages are permuted, the test is one-sided (Mantel 1967, Cancer Res. 27:209-220).

    None where there are fewer than three languages or one side has all distances equal.
    """
    upper = np.triu_indices(len(one_GG), 1)
    flat = one_GG[upper].std() * other_GG[upper].std() if len(upper[0]) else 0.0
    if len(one_GG) < FEWEST_LANGUAGES or flat < 1e-12:  # noqa: PLR2004
        return None
    generator = np.random.default_rng(seed)
    found = float(np.corrcoef(one_GG[upper], other_GG[upper])[0, 1])
    reaching = 0
    for _ in range(shuffles):
        order = generator.permutation(len(one_GG))
        reaching += np.corrcoef(one_GG[np.ix_(order, order)][upper], other_GG[upper])[0, 1] >= found - 1e-9
    return Mantel(found, float((1 + reaching) / (1 + shuffles)))


def divergence(tally: Tally, shuffles: int, seed: int) -> dict[str, Any]:
    """Return `languages` in the order of rows, their `n`, and `layers`.

    Layers: `matrix` in bits, `normalised`, `to_english` and `to_english_normalised` (None without English),
    `mean` over pairs, `linkage`, `tree_correlation` of the linkage's heights with the family tree, its
    `p_value`, both over the languages of the table of languages. Languages without a token are left out.
    """
    tokens = tokens_G(tally)
    there = np.flatnonzero(tokens)
    codes = [tally.languages[i] for i in there]
    counts = picks_GLE(tally)[there].astype(np.float64)
    layers = [_layer(codes, counts[:, i], shuffles, seed) for i in range(len(tally.layers))]
    numbered = [{"layer": layer, **facts} for layer, facts in zip(tally.layers, layers, strict=True)]
    return {"languages": codes, "n": tokens[there].tolist(), "unit": "bits", "layers": numbered}


def _layer(codes: list[str], counts_GE: FloatArray, shuffles: int, seed: int) -> dict[str, Any]:
    bits, normalised = divergences(counts_GE)
    english = codes.index(ENGLISH) if ENGLISH in codes else None
    several = len(codes) > 1
    known = [i for i, code in enumerate(codes) if code in all_languages()]
    tree = mantel_of_tree(bits[np.ix_(known, known)], [codes[i] for i in known], shuffles, seed)
    return {
        "matrix": bits.tolist(),
        "normalised": normalised.tolist(),
        "to_english": None if english is None else bits[english].tolist(),
        "to_english_normalised": None if english is None else normalised[english].tolist(),
        "mean": float(bits[np.triu_indices(len(codes), 1)].mean()) if several else 0.0,
        "linkage": linkage(bits).tolist() if several else [],
        "tree_correlation": tree.correlation if tree else None,
        "p_value": tree.p_value if tree else None,
    }


def mantel_of_tree(bits: FloatArray, codes: Sequence[str], shuffles: int, seed: int) -> Mantel | None:
    """Correlate the heights of the linkage of divergences with distances in the family tree."""
    if len(codes) < FEWEST_LANGUAGES:
        return None
    return mantel(cophenetic(bits), tree_distances(codes), shuffles, seed)
