"""Licences: one name for every spelling, and a policy that lets nothing pass by a spelling."""

import re
from typing import Any

import pyarrow as pa
import pytest

from polyclinic.corpus.read.licence import apply, licence, refusal
from polyclinic.corpus.tables import DOCUMENTS
from polyclinic.corpus_section import LicencesSection
from polyclinic.errors import DataError, RecipeError
from polyclinic.records import Document, Turn

SPELLINGS = {
    "CC-BY-4.0": ["cc-by-4.0", "CC BY 4.0", "cc_by_4", "Creative Commons Attribution 4.0 International",
                  "https://creativecommons.org/licenses/by/4.0/", "CC-BY 4.0 License",
                  "Creative Commons Attribution 4.0 International Public License"],
    "CC-BY-NC-SA-4.0": ["cc-by-nc-sa-4.0", "CC BY-NC-SA 4.0", "http://creativecommons.org/licenses/by-nc-sa/4.0/deed.en",
                        "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International"],
    "CC-BY-NC-ND-3.0": ["CC BY-NC-ND 3.0 Unported", "Creative Commons Attribution Non Commercial No Derivatives 3.0"],
    "CC-BY-SA": ["cc by-sa", "CC-BY-SA"],
    "CC0-1.0": ["cc0", "CC0 1.0 Universal", "CC0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/"],
    "CC-BY-2.0-FR": ["CC-BY-2.0-FR", "CC BY 2.0 FR"],
    "Apache-2.0": ["apache-2.0", "Apache License 2.0", "Apache License, Version 2.0", "Apache 2.0"],
    "MIT": ["mit", "The MIT License", "MIT license"],
    "public domain": ["public domain", "Public Domain", "public-domain"],
    "ODC-By-1.0": ["odc-by", "ODC-By-1.0"],
    "GPL-3.0": ["gpl-3.0", "GPL v3", "GPL-3.0-or-later"],
}  # fmt: skip
UNKNOWN = [
    "unknown",
    "other",
    "",
    "cc",
    "by",
    "llama3",
    "proprietary",
    "CC-BY-9.0",
    "4.0",
    "mitigated",
    "all rights reserved",
]


@pytest.mark.parametrize(("name", "spelling"), [(n, s) for n, spellings in SPELLINGS.items() for s in spellings])
def test_every_usual_spelling_is_one_licence(name: str, spelling: str) -> None:
    found = licence(spelling)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_no_licence_is_none(name: str) -> None:
    assert licence(name) is None


@pytest.mark.parametrize("version", ["", " 1.0", " 2.0", " 2.5", " 3.0", " 4.0"])
@pytest.mark.parametrize("kind", ["BY", "BY-SA", "BY-NC", "BY-NC-SA", "BY-ND", "BY-NC-ND"])
def test_a_creative_commons_licence_asks_what_its_letters_say(kind: str, version: str) -> None:
    found = licence(f"CC {kind}{version}")
    assert found is not None
    assert found.asks == set(kind.split("-")) - {"BY"}
    for flag, rule in (("NC", "non_commercial"), ("SA", "share_alike"), ("ND", "no_derivatives")):
        refused = refusal(f"CC {kind}{version}", LicencesSection.model_validate({rule: False}))
        assert refused == (f"licence {found.name}: {flag}" if flag in found.asks else None)


def batch(*licences: str) -> pa.RecordBatch:
    rows = [
        Document(str(i), "en", f"s{i}", name, str(i), (Turn("text", "x"),)).row() for i, name in enumerate(licences)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=DOCUMENTS)


def applied(policy: dict[str, Any], *licences: str) -> tuple[list[str], dict[str, int]]:
    found = apply(batch(*licences), LicencesSection.model_validate(policy))
    assert found.batch.schema == DOCUMENTS
    assert found.batch.num_rows + found.dropped.num_rows == len(licences)
    return found.batch.column("licence").to_pylist(), dict(found.counts)


def test_names_become_one_and_unknown_ones_stay_and_are_counted() -> None:
    names, counts = applied({}, "cc by 4.0", "CC-BY-4.0", "my own", "CC BY-NC 4.0")
    assert names == ["CC-BY-4.0", "CC-BY-4.0", "my own", "CC-BY-NC-4.0"]
    assert counts == {"changed: name of the licence": 2, "licence: not known": 1}


def test_what_is_refused_is_counted_by_licence_and_reason() -> None:
    policy = {"non_commercial": False, "share_alike": False, "unknown": False}
    names, counts = applied(policy, "mit", "CC BY-NC 4.0", "CC-BY-NC-SA-4.0", "what?", "cc by sa 4")
    assert names == ["MIT"]
    assert {reason: n for reason, n in counts.items() if reason.startswith("dropped")} == {
        "dropped: licence CC-BY-NC-4.0: NC": 1,
        "dropped: licence CC-BY-NC-SA-4.0: NC SA": 1,
        "dropped: licence CC-BY-SA-4.0: SA": 1,
        "dropped: licence unknown": 1,
    }


def test_a_name_is_counted_as_changed_only_where_the_row_stays() -> None:
    _, counts = applied({"non_commercial": False}, "cc by nc 4.0", "cc by 4.0")
    assert counts == {"changed: name of the licence": 1, "dropped: licence CC-BY-NC-4.0: NC": 1}


def test_only_what_is_allowed_passes_by_any_name() -> None:
    names, counts = applied({"allow": ["CC0", "mit"]}, "CC0 1.0 Universal", "MIT", "Apache-2.0", "unknown")
    assert names == ["CC0-1.0", "MIT"]
    assert counts["dropped: licence Apache-2.0: not allowed"] == counts["dropped: licence unknown"] == 1


def test_a_refusal_may_be_an_error_that_names_the_source() -> None:
    policy = {"share_alike": False, "on_refusal": "fail"}
    assert applied(policy, "mit")[0] == ["MIT"]
    with pytest.raises(DataError, match=re.escape("source s1: licence CC-BY-SA-4.0: SA")):
        applied(policy, "mit", "cc-by-sa-4.0")


def test_a_policy_that_allows_what_nobody_knows_is_an_error() -> None:
    with pytest.raises(RecipeError, match="'CC-BY-9' is no licence"):
        applied({"allow": ["CC-BY-9"]}, "mit")
