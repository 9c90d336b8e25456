"""States of translations: margin and retrieval by definition, whatever offset a language has."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from polyclinic.analyse.depth.parallel import FEWEST, align

N, L, H = 30, 2, 50


def states(noise: float, languages: int = 3, seed: int = 0) -> np.ndarray:
    """Draw what a text says, plus noise, plus a large offset of each language."""
    draw = np.random.default_rng(seed)
    said = draw.normal(size=(N, L, H))
    out = said + noise * draw.normal(size=(languages, N, L, H)) + 20 * draw.normal(size=(languages, 1, L, H))
    return out.astype(np.float32)


EVERY = np.ones((3, N), dtype=bool)


def test_states_that_carry_the_text_alone_find_every_translation() -> None:
    found = align(states(0.0), EVERY)
    assert found.pairs == 3
    assert (found.found_NL == 1).all()
    assert found.margin_NL.mean() == pytest.approx(1 + 1 / (N - 1), abs=0.02)  # centred, the others are below 0


def test_states_that_do_not_carry_it_find_them_by_chance() -> None:
    found = [align(states(1e3, seed=s), EVERY) for s in range(10)]
    assert np.mean([f.margin_NL.mean() for f in found]) == pytest.approx(0, abs=0.01)
    assert np.mean([f.found_NL.mean() for f in found]) == pytest.approx(1 / N, abs=0.015)


def test_states_that_are_all_equal_find_nothing() -> None:
    assert align(np.ones((2, N, L, H), np.float32), EVERY[:2]).found_NL.sum() == 0


def test_it_is_what_another_implementation_computes_on_the_texts_that_two_languages_share() -> None:
    values, has = states(2.0, languages=2), EVERY[:2].copy()
    has[0, :7], has[1, -5:] = False, False
    found = align(values, has)
    both = has.all(0)
    assert np.isnan(found.margin_NL[~both]).all()
    assert not np.isnan(found.margin_NL[both]).any()
    for layer in range(L):
        one, two = (v[both, layer] - v[both, layer].mean(0) for v in values)
        cosines = cosine_similarity(one, two)
        own = np.diag(cosines)
        margins = [own - (m.sum(1) - own) / (both.sum() - 1) for m in (cosines, cosines.T)]
        np.testing.assert_allclose(found.margin_NL[both, layer], np.mean(margins, axis=0), atol=1e-5)
        hits = [m.argmax(1) == np.arange(both.sum()) for m in (cosines, cosines.T)]
        np.testing.assert_allclose(found.found_NL[both, layer], np.mean(hits, axis=0))


def test_languages_that_share_too_few_texts_are_no_pair() -> None:
    has = EVERY.copy()
    has[0, FEWEST - 1 :] = False
    found = align(states(0.1), has)
    assert found.pairs == 1
    has[1] = False
    assert align(states(0.1), has).pairs == 0
