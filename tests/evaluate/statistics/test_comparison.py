"""Two models on the same questions: differences, tests, who wins, and how often luck is taken for skill."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from made_items import answered, item
from polyclinic.errors import DataError
from polyclinic.evaluate.items import Item
from polyclinic.evaluate.statistics.comparison import A_BETTER, B_BETTER, UNSHOWN, compare, judged, row
from polyclinic.evaluate.statistics.comparison import Pair as P
from polyclinic.evaluate.statistics.comparison_lines import comparison_csv, lines
from polyclinic.evaluate.statistics.significance import mcnemar

CODES = ("de", "en", "fr", "sw")
both = st.lists(st.tuples(st.sampled_from(CODES), st.booleans(), st.booleans()), min_size=1, max_size=40)


def two(draws: list[tuple[str, bool, bool]]) -> tuple[list[Item], list[Item]]:
    a = [item(n, right, language=code) for n, (code, right, _) in enumerate(draws)]
    b = [item(n, right, language=code) for n, (code, _, right) in enumerate(draws)]
    return a, b


@settings(max_examples=25, deadline=None)
@given(both)
def test_differences_follow_from_the_items(draws: list[tuple[str, bool, bool]]) -> None:
    a, b = two(draws)
    found = compare(a, b[::-1])
    for r in found["languages"]:
        own = [(x, y) for code, x, y in draws if code == r["name"]]
        wins, losses = sum(x and not y for x, y in own), sum(y and not x for x, y in own)
        assert (r["n"], r["wins"], r["losses"], r["ties"]) == (len(own), wins, losses, len(own) - wins - losses)
        assert r["difference"] == pytest.approx(r["a"] - r["b"])
        p = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1
        assert r["mcnemar"] == pytest.approx(p)
    assert found["micro"]["difference"] == pytest.approx(np.mean([x - y for _, x, y in np.array(draws, dtype=object)]))
    assert found["macro"]["difference"] == pytest.approx(np.mean([r["difference"] for r in found["languages"]]))
    assert found["wins"] + found["losses"] + found["ties"] == len(found["languages"])
    assert found["wins"] == sum(r["difference"] > 0 for r in found["languages"])


@settings(max_examples=15, deadline=None)
@given(both)
def test_turned_round_all_turns_round(draws: list[tuple[str, bool, bool]]) -> None:
    a, b = two(draws)
    there, back = compare(a, b), compare(b, a)
    for x, y in zip(there["languages"], back["languages"], strict=True):
        assert (x["wins"], x["losses"], x["mcnemar"], x["holm"]) == (y["losses"], y["wins"], y["mcnemar"], y["holm"])
        assert x["difference"] == -y["difference"]
    assert there["micro"]["p"] == pytest.approx(back["micro"]["p"])
    assert there["macro"]["p"] == pytest.approx(back["macro"]["p"])


def test_a_model_equals_itself() -> None:
    own = [x for code in CODES for x in answered(np.random.default_rng(0), 30, 0.5, language=code)]
    found = compare(own, own)
    everything = [*found["languages"], found["micro"], found["macro"]]
    assert {(r["difference"], r["low"], r["high"], r["verdict"]) for r in everything} == {(0, 0, 0, UNSHOWN)}
    assert found["ties"] == 4


def test_what_only_one_has_is_named_and_left_out() -> None:
    a, b = [item(n) for n in range(5)], [item(n, n > 2) for n in range(2, 9)]
    found = compare(a, [*b, item(1, exam="f")])
    assert found["micro"]["n"] == 3
    assert found["only_a"] == {"e_en": ["0", "1"]}
    assert found["only_b"] == {"e_en": ["5", "6", "7", "8"], "f_en": ["1"]}
    assert lines(found)[-2:] == [
        "left out, since only A has them: e_en 2",
        "left out, since only B has them: e_en 4, f_en 1",
    ]


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(DataError, match="no question in common"):
        compare([item(1)], [item(2)])


@pytest.mark.parametrize("other", [{"gold": (2,)}, {"options": 5}])
def test_another_key_to_the_same_exam_is_an_error(other: dict[str, object]) -> None:
    with pytest.raises(DataError, match="do not mean the same by item 1 of e_en"):
        compare([item(1)], [item(1, **other)])


def test_skill_is_shown_in_the_language_that_has_it() -> None:
    draw = np.random.default_rng(1)
    better, worse = {"en": 0.9, "sw": 0.3}, {"en": 0.5, "sw": 0.8}
    a = [x for c in CODES for x in answered(draw, 150, better.get(c, 0.5), language=c)]
    b = [x for c in CODES for x in answered(draw, 150, worse.get(c, 0.5), language=c)]
    found = compare(a, b)
    assert [r["verdict"] for r in found["languages"]] == [UNSHOWN, A_BETTER, UNSHOWN, B_BETTER]
    assert (found["shown_wins"], found["shown_losses"]) == (1, 1)


def test_translations_are_one_question_to_the_test_over_all() -> None:
    """Twelve questions that A wins and two that B wins, each in four languages."""
    a = [item(n, n < 12, language=c, group=f"g {n}") for c in CODES for n in range(14)]
    b = [item(n, n >= 12, language=c, group=f"g {n}") for c in CODES for n in range(14)]
    micro = compare(a, b)["micro"]
    assert micro["clusters"] == 14
    assert micro["mcnemar"] < 1e-6
    z = 40 / np.sqrt(14 * 16)
    assert micro["p"] == pytest.approx(2 * stats.norm.sf(z))


def test_equal_models_are_rarely_told_apart_in_any_of_ten_languages() -> None:
    draw, holm, raw = np.random.default_rng(7), 0, 0
    for _ in range(250):
        right = draw.random((10, 60, 2)) < 0.5
        signs = right[:, :, 0].astype(int) - right[:, :, 1]
        rows = [
            {"difference": own.mean(), "mcnemar": mcnemar(int((own > 0).sum()), int((own < 0).sum()))} for own in signs
        ]
        found = judged(rows)
        holm += any(r["verdict"] != UNSHOWN for r in found)
        raw += any(r["mcnemar"] < 0.05 for r in found)
    assert holm / 250 <= 0.06
    assert raw / 250 > 0.15


def test_the_paired_interval_holds_the_truth() -> None:
    draw, held = np.random.default_rng(8), 0
    for seed in range(300):
        luck = draw.random(120)
        pairs = [P(str(n), "en", bool(u < 0.6), bool(u < 0.5 or u > 0.95)) for n, u in enumerate(luck)]
        r = row("en", pairs, seed)
        held += r["low"] <= 0.05 <= r["high"]
    assert 0.92 <= held / 300 <= 0.98


def test_the_mean_over_languages_counts_each_alike_in_interval_and_test() -> None:
    """Independent items: the error of a mean of two means, by formula."""
    draw = np.random.default_rng(9)
    a = [x for code, n in (("en", 400), ("fr", 50)) for x in answered(draw, n, 0.8, language=code)]
    b = [x for code, n in (("en", 400), ("fr", 50)) for x in answered(draw, n, 0.5, language=code)]
    a, b = ([x._replace(group=f"{x.language} {x.id}") for x in own] for own in (a, b))
    macro = compare(a, b)["macro"]
    gains = [[int(x.right) - int(y.right) for x, y in zip(a, b, strict=True) if x.language == c] for c in ("en", "fr")]
    error = np.sqrt(sum(np.var(own) / len(own) for own in gains)) / 2
    mean = np.mean([np.mean(own) for own in gains])
    assert (macro["low"], macro["high"]) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.2 * error)
    null = np.sqrt(sum(np.mean(np.square(own)) / len(own) for own in gains)) / 2
    assert macro["p"] == pytest.approx(2 * stats.norm.sf(mean / null))


def test_the_table_and_the_csv_show_every_row() -> None:
    a, b = two([(code, n % 3 > 0, n % 2 > 0) for n in range(40) for code in CODES])
    found = compare(a, b)
    text, table = lines(found), comparison_csv(found).splitlines()
    names = [*CODES, "mean over languages", "all items"]
    assert [line.split("  ")[0] for line in text[1:7]] == names
    assert [line.split(",")[0] for line in table] == ["name", *names]
    assert f"{100 * found['languages'][0]['difference']:+.1f}" in text[1]
