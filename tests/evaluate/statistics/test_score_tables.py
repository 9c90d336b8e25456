"""Rows of scores: what they hold, what guessers and constant models are told, what the means mean."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from made_items import answered, guesses, item
from polyclinic.errors import DataError
from polyclinic.evaluate.items import Item
from polyclinic.evaluate.statistics import tables
from polyclinic.evaluate.statistics.guessing import best_constant
from polyclinic.evaluate.statistics.tables import scores, tier, write_tables
from polyclinic.families import fifty, majors
from polyclinic.intervals import wilson
from polyclinic.languages import all_languages

FAMILIES = {"en": "Germanic", "de": "Germanic", "fr": "Romance", "sw": "Bantu", "yo": "Bantu"}
one_item = st.tuples(
    st.sampled_from(["en", "de", "fr", "sw"]),
    st.sampled_from(["e", "f"]),
    st.sampled_from([True, False, None]),
    st.integers(2, 5),
)


def some_items(draws: list[tuple[str, str, bool | None, int]]) -> list[Item]:
    out = []
    for number, (language, exam, right, options) in enumerate(draws):
        unparsed = {"picked": None} if right is None else {}
        out.append(item(number, bool(right), language=language, exam=exam, options=options, **unparsed))
    return out


def level(rows: list[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows if row["level"] == name}


@settings(max_examples=25, deadline=None)
@given(st.lists(one_item, min_size=1, max_size=30))
def test_every_item_stands_once_in_every_level_and_shares_follow_from_items(
    draws: list[tuple[str, str, bool | None, int]],
) -> None:
    items = some_items(draws)
    rows = scores(items, FAMILIES)
    for name in ("task", "exam_language", "language", "tier", "family", "micro"):
        found = level(rows, name).values()
        assert sum(row["n"] for row in found) == len(items)
        assert sum(row["accuracy"] * row["n"] for row in found) == pytest.approx(sum(i.right for i in items))
    for code, row in level(rows, "language").items():
        own = [i for i in items if i.language == code]
        parsed = [i for i in own if i.picked is not None]
        right = sum(i.right for i in own)
        assert (row["wilson_low"], row["wilson_high"]) == wilson(right, len(own))
        assert row["unparsed"] == pytest.approx(1 - len(parsed) / len(own))
        assert row["accuracy_parsed"] == (pytest.approx(right / len(parsed)) if parsed else None)
        assert row["chance"] == pytest.approx(np.mean([1 / i.options for i in own]))
        assert row["constant"] == best_constant(i.gold for i in own).share
        assert row["boot_low"] - 1e-9 <= row["accuracy"] <= row["boot_high"] + 1e-9 or len(own) < 30
    (macro,) = level(rows, "macro").values()
    assert macro["accuracy"] == pytest.approx(np.mean([r["accuracy"] for r in level(rows, "language").values()]))


def test_tiers_are_those_of_the_paper() -> None:
    found = [tier(code) for code in all_languages()]
    assert (found.count("major"), found.count("minor")) == (12, 38)
    assert {tier(code) for code in majors()} == {"major"}
    assert {tier(code) for code in set(all_languages()) - set(fifty())} == {"beyond"}


def test_a_guesser_is_rarely_praised_or_blamed() -> None:
    """Twelve languages guessed blindly, three hundred times: a false verdict anywhere in at most 5 %."""
    draw, codes, false = np.random.default_rng(2), fifty()[:12], 0
    for _ in range(300):
        right = draw.random((12, 40)) < 0.25
        rows = [{"p": 0.0, "p_above": 0.0, "p_below": 0.0, "p_constant": 1.0} for _ in codes]
        for row, own in zip(rows, right.tolist(), strict=True):
            tails = tables.against_odds(own, [0.25] * 40, [str(n) for n in range(40)])
            row |= {"p": tails.doubled, "p_above": tails.above, "p_below": tails.below}
        false += any(row["verdict"] != tables.UNCLEAR for row in tables.judged(rows))
    assert false / 300 <= 0.06


def test_verdicts_name_skill_luck_and_worse_than_luck() -> None:
    draw = np.random.default_rng(3)
    items = [
        *answered(draw, 200, 0.6, language="en"),
        *guesses(draw, 200, language="de"),
        *answered(draw, 200, 0.05, language="fr"),
    ]
    found = level(scores(items), "language")
    assert [found[code]["verdict"] for code in ("en", "de", "fr")] == [tables.ABOVE, tables.UNCLEAR, tables.BELOW]
    assert [found[code]["constant_verdict"] for code in ("en", "de")] == [tables.BEATS, tables.BEATS_NOT]
    assert all(row["p"] <= row["bh"] <= row["holm"] for row in found.values())


def test_a_model_that_always_says_the_same_is_above_chance_and_not_above_the_constant() -> None:
    golds = [3] * 90 + [0, 1, 2] * 36
    items = [item(number, gold=(gold,), picked=(3,)) for number, gold in enumerate(golds)]
    (row,) = level(scores(items), "language").values()
    assert (row["verdict"], row["constant_verdict"]) == (tables.ABOVE, tables.BEATS_NOT)
    assert (row["constant_answer"], row["constant"]) == ("D", row["accuracy"])


def test_exams_with_several_answers_are_guessed_by_sets() -> None:
    items = [
        item(0, gold=(0, 1), picked=(0,), options=5, exam="m"),
        item(1, gold=(2,), picked=(2,), options=5, exam="m"),
        item(2, gold=(2,), picked=(2,), options=5, exam="s"),
    ]
    found = level(scores(items), "exam_language")
    assert found["m en"]["chance"] == pytest.approx(1 / 31)
    assert (found["m en"]["hamming"], found["m en"]["several"]) == (0.75, 2)
    assert (found["s en"]["chance"], found["s en"]["hamming"]) == (0.2, None)
    plain = level(scores(items, several=()), "exam_language")["m en"]
    assert (plain["chance"], plain["hamming"]) == (0.2, None)


def test_an_exam_whose_sets_of_options_were_scored_has_several_answers() -> None:
    assert tables.mark([item(0, options=3, scores=(0.0,) * 7)])[0].several
    assert not tables.mark([item(0, options=3, scores=(0.0,) * 3)])[0].several


def test_derived_exams_count_in_the_means_only_when_asked() -> None:
    items = [*(item(n, True) for n in range(4)), *(item(n, False, exam="terms", language="yo") for n in range(4))]
    without, asked = scores(items, derived={"terms"}), scores(items, derived={"terms"}, include_derived=True)
    assert set(level(without, "exam_language")) == {"e en", "terms yo"}
    assert set(level(without, "language")) == {"en"}
    for name, least in (("macro", 1.0), ("micro", 1.0)):
        (left,), (whole,) = (level(rows, name).values() for rows in (without, asked))
        assert (left["accuracy"], whole["accuracy"]) == (least, 0.5)


def test_a_derived_exam_alone_has_no_mean() -> None:
    assert {row["level"] for row in scores([item(0)], derived={"e"})} == {"task", "exam_language"}


@pytest.mark.parametrize("shared", [True, False])
def test_the_interval_of_the_macro_mean_holds_the_truth(shared: bool) -> None:
    """Three languages of unlike size and skill, whose questions are translations of each other or not."""
    draw, held = np.random.default_rng(4), 0
    sizes, truths = {"en": 120, "fr": 60, "sw": 30}, {"en": 0.7, "fr": 0.5, "sw": 0.3}
    for seed in range(200):
        luck = draw.random(120)
        items = []
        for code, size in sizes.items():
            own = luck[:size] if shared else draw.random(size)
            group = "g {}" if shared else code + " {}"
            items += [item(n, bool(own[n] < truths[code]), language=code, group=group.format(n)) for n in range(size)]
        found = tables.macro(tables.mark(items), seed)
        held += found["boot_low"] <= 0.5 <= found["boot_high"]
    assert 0.90 <= held / 200 <= 0.99


def test_the_tests_of_the_macro_mean_weigh_languages_alike() -> None:
    draw = np.random.default_rng(6)
    parts = [answered(draw, n, 0.4, language=code) for code, n in (("en", 300), ("fr", 40))]
    parts = [[x._replace(group=f"{x.language} {x.id}") for x in part] for part in parts]
    (row,) = level(scores([x for part in parts for x in part]), "macro").values()
    for key, null in (("p_above", 0.25), ("p_constant", None)):
        gains = []
        for part in parts:
            best = best_constant(x.gold for x in part).answer
            gains.append([x.right - (float(x.gold == best) if null is None else null) for x in part])
        error = np.sqrt(sum(np.mean(np.square(own)) / len(own) for own in gains)) / 2
        assert row[key] == pytest.approx(stats.norm.sf(np.mean([np.mean(own) for own in gains]) / error))


def test_translations_widen_the_interval_of_the_pooled_row() -> None:
    draw = np.random.default_rng(5)
    right = (draw.random(100) < 0.5).tolist()
    widths = {}
    for name, group in (("joined", "g {n}"), ("apart", "{code} {n}")):
        items = [
            item(n, right[n], language=code, group=group.format(n=n, code=code))
            for code in ("de", "en", "fr", "sw")
            for n in range(100)
        ]
        (row,) = level(scores(items), "micro").values()
        widths[name] = row["boot_high"] - row["boot_low"]
        assert row["clusters"] == (100 if name == "joined" else 400)
    assert widths["joined"] == pytest.approx(2 * widths["apart"], rel=0.15)


def test_exams_that_number_their_questions_do_not_share_clusters() -> None:
    alike = [item(1, exam=exam, group="1") for exam in ("e", "f")]
    assert level(scores(alike), "micro")["all items"]["clusters"] == 2
    translated = [item(1, group="1"), item(7, language="fr", group="1")]
    assert level(scores(translated), "micro")["all items"]["clusters"] == 1
    across = [item(8, exam=exam, group="g") for exam in ("e", "f")]
    assert level(scores(across), "micro")["all items"]["clusters"] == 1


@pytest.mark.parametrize(
    ("items", "what"),
    [
        ([], "no items"),
        ([item(1), item(1)], "twice"),
        ([item(1, picked=(4,))], "of 4 options"),
        ([item(1, gold=())], "of 4 options"),
    ],
)
def test_items_without_meaning_are_refused(items: list[Item], what: str) -> None:
    with pytest.raises(DataError, match=what):
        scores(items)


def test_a_language_without_family_is_named() -> None:
    with pytest.raises(DataError, match="'th'"):
        scores([item(0, language="th")], FAMILIES)


def test_a_csv_per_level_holds_the_rows(tmp_path: Path) -> None:
    rows = scores(answered(np.random.default_rng(0), 9, 0.5), FAMILIES)
    names = write_tables(rows, tmp_path)
    assert names == [f"scores-{n}.csv" for n in dict.fromkeys(r["level"] for r in rows)]
    assert sorted(names) == sorted(p.name for p in tmp_path.iterdir())
    read = [r for n in names for r in csv.DictReader((tmp_path / n).read_text("utf-8").splitlines())]
    for row, found in zip(rows, read, strict=True):
        assert {k: "" if v is None else str(v) for k, v in row.items()} == found
