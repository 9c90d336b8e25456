"""What an upcycle will do is decided from recipe and sizes alone, and contradictions are found before any work."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.upcycle.conftest import refusal

from polyclinic.errors import RecipeError
from polyclinic.families import load_preset, preset_names
from polyclinic.recipe import UpcycleSection
from polyclinic.upcycle.plan import check_routing, experts_of, sparse_layers, start

SIZE = st.integers(1, 40)


def refused(work: object) -> str:
    assert callable(work)
    return refusal(work, RecipeError, 3)


# Layers


@settings(deadline=None, max_examples=60)
@given(SIZE, SIZE)
def test_the_last_layers_are_the_last_ones_in_order(num_layers: int, last: int) -> None:
    section = UpcycleSection(last_layers=last)
    if last > num_layers:
        said = refused(lambda: sparse_layers(section, num_layers))
        assert f"{last} of {num_layers} layers" in said
    else:
        assert sparse_layers(section, num_layers) == tuple(range(num_layers))[-last:]


@settings(deadline=None, max_examples=60)
@given(SIZE, st.lists(st.integers(0, 45), min_size=1, unique=True))
def test_layers_by_number_are_those_in_order_and_must_be_there(num_layers: int, layers: list[int]) -> None:
    section = UpcycleSection(layers=layers)
    outside = [i for i in layers if i >= num_layers]
    if outside:
        said = refused(lambda: sparse_layers(section, num_layers))
        assert f"layer {outside[0]} of {num_layers} layers" in said
        assert f"0 to {num_layers - 1}" in said
    else:
        assert sparse_layers(section, num_layers) == tuple(sorted(layers))


@settings(deadline=None, max_examples=60)
@given(SIZE, SIZE)
def test_the_first_layers_are_the_first_ones_and_all_are_all(num_layers: int, count: int) -> None:
    section = UpcycleSection(place="first", last_layers=count)
    if count > num_layers:
        assert f"{count} of {num_layers} layers" in refused(lambda: sparse_layers(section, num_layers))
    else:
        assert sparse_layers(section, num_layers) == tuple(range(num_layers))[:count]
    assert sparse_layers(UpcycleSection(place="all"), num_layers) == tuple(range(num_layers))


@settings(deadline=None, max_examples=60)
@given(SIZE, SIZE, st.integers(0, 2**31 - 1))
def test_layers_at_random_are_as_many_in_order_and_the_same_for_a_seed(num_layers: int, count: int, seed: int) -> None:
    section = UpcycleSection(place="random", last_layers=min(count, num_layers))
    drawn = sparse_layers(section, num_layers, seed)
    assert drawn == sparse_layers(section, num_layers, seed)
    assert list(drawn) == sorted(set(drawn))
    assert len(drawn) == min(count, num_layers)
    assert set(drawn) <= set(range(num_layers))


def test_every_layer_is_drawn_about_as_often_as_any_other() -> None:
    """Counts over 600 seeds against their mean of 100; five standard deviations of a binomial are 46."""
    drawn = [i for seed in range(600) for i in sparse_layers(UpcycleSection(place="random"), 12, seed)]
    assert all(abs(drawn.count(i) - 100) < 46 for i in range(12))


def test_without_a_word_the_last_two_become_sparse() -> None:
    assert sparse_layers(UpcycleSection(), 24) == (22, 23)
    assert sparse_layers(UpcycleSection(), 2) == (0, 1)
    assert "2 of 1 layers" in refused(lambda: sparse_layers(UpcycleSection(), 1))


@pytest.mark.parametrize(
    "values",
    [
        {"layers": [1], "last_layers": 1},
        {"layers": [1], "place": "first"},
        {"place": "all", "last_layers": 2},
        {"place": "middle"},
        {"layers": []},
        {"layers": [1, 1]},
        {"layers": [-1]},
        {"last_layers": 0},
        {"top_k": 0},
        {"num_experts": 0},
        {"noise": 0.1, "reinit": 0.1},
        {"noise": -0.1},
        {"reinit": 1.5},
        {"router_init": "ones"},
        {"shared_expert": True},
    ],
)
def test_a_section_that_contradicts_itself_is_none(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UpcycleSection(**values)


# Experts


@pytest.mark.parametrize("name", preset_names())
def test_there_is_an_expert_for_each_family_and_another_number_is_refused(name: str) -> None:
    families = len(load_preset(name).families)
    for given_number in (None, families):
        assert experts_of(UpcycleSection(families=name, num_experts=given_number)).num_experts == families
    for wrong in (families - 1, families + 1):
        said = refused(lambda wrong=wrong: experts_of(UpcycleSection(families=name, num_experts=wrong, top_k=1)))
        assert f"num_experts {wrong}" in said
        assert f"'{name}' has {families}" in said


def test_there_are_no_more_picks_than_experts() -> None:
    for top_k in range(1, 8):
        assert experts_of(UpcycleSection(families="apollo", top_k=top_k)).name == "apollo"
    assert "top_k 8 of 7 experts" in refused(lambda: experts_of(UpcycleSection(families="apollo", top_k=8)))


def test_an_unknown_preset_is_refused_by_its_nearest_name() -> None:
    assert "did you mean apollo?" in refused(lambda: experts_of(UpcycleSection(families="appolo")))


# Routing


@pytest.mark.parametrize("init", ["zero", "random", "centroid"])
@pytest.mark.parametrize("routing", ["topk", "hybrid", "language"])
@pytest.mark.parametrize("moved", [{}, {"noise": 0.1}, {"reinit": 0.1}])
def test_only_plain_top_k_over_alike_experts_cannot_leave_a_router_of_zeros(
    init: str, routing: str, moved: dict[str, float]
) -> None:
    section = UpcycleSection(router_init=init, **moved)
    if (init, routing, moved) == ("zero", "topk", {}):
        assert "under plain top-k" in refused(lambda: check_routing(section, routing))
    else:
        check_routing(section, routing)


def test_the_start_is_told_in_words() -> None:
    assert start({"equal_by_design": True, "differs_by": []}) == "equal to the parent"
    said = start({"equal_by_design": False, "differs_by": ["one thing", "another"]})
    assert said == "differs from the parent by choice: one thing, another"
