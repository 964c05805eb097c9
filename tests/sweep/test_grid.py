"""What a sweep's command line means: lists, seeds, distributions, and names that tell runs apart."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbkit.config import read_yaml
from mbkit.errors import UserError
from mbkit.recording.rundir import directory_name
from mbkit.sweep.distributions import distribution
from mbkit.sweep.grid import Axis, arguments_of, parse_grid
from mbkit.sweep.lists import parse_seeds, split_list
from mbkit.sweep.planning import LONGEST_NAME, Combination, group_name, labels_of, with_different_names
from mbkit.sweep.tables import span

PLAIN = st.text(alphabet="abcxyz0189.-_+e/", min_size=1, max_size=6)
BRACKETED = st.lists(PLAIN, min_size=1, max_size=3).map(lambda parts: f"[{','.join(parts)}]")
QUOTED = st.text(alphabet="ab,[]( ", max_size=5).map(lambda text: f"'{text}'")
VALUES = st.one_of(PLAIN, BRACKETED, QUOTED)


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_a_list_is_divided_at_the_commas_that_stand_in_no_brackets_and_no_quotes(values):
    assert split_list(",".join(values)) == values


@given(st.sets(st.integers(0, 40), min_size=1, max_size=12))
def test_seeds_as_they_are_shown_are_read_back(seeds):
    ordered = sorted(seeds)
    if "…" not in span(ordered):
        assert parse_seeds(span(ordered)) == ordered


@pytest.mark.parametrize("text", ["", "1..", "a", "1,1", "1..3,2", "-1", "4294967296", "1.5"])
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(UserError, match=r"--seeds .*such as 1\.\.5"):
        parse_seeds(text)


def test_a_range_of_seeds_that_runs_backwards_is_named():
    with pytest.raises(UserError, match=r"--seeds 2,5\.\.1: expected the smaller number first, 1\.\.5; came 5\.\.1"):
        parse_seeds("2,5..1")


@given(st.floats(1e-9, 1e3), st.floats(1.001, 100), st.sampled_from(["log", "uniform"]))
def test_a_distribution_is_read_back_as_it_is_shown(low, factor, kind):
    once = distribution(f"{kind}({low!r}..{low * factor!r})", "x")
    assert once is not None
    assert (once.kind, once.low, once.high) == (kind, low, low * factor)
    assert distribution(str(once), "x") == once


def test_drawn_numbers_are_typed_so_that_the_very_same_ones_are_read():
    drawn = distribution("log(1e-5..1e-3)", "x")
    assert drawn is not None
    value = math.pi * 1e-4
    assert read_yaml(drawn.written(value), "x") == value
    whole = distribution("int(1..8)", "x")
    assert whole is not None
    assert whole.written(3) == "3"
    assert distribution("choice([8,8],16)", "x").extremes == ("[8,8]", "16")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("log(0..1)", "positive numbers only"),
        ("uniform(2..1)", "a smaller and a larger number"),
        ("int(1..2.5)", "two whole numbers"),
        ("uniform(1,2)", "two numbers"),
        ("choice(a)", "at least two different values"),
        ("choice(a,a)", "at least two different values"),
        ("normal(0..1)", "'normal' is no distribution"),
        ("log(1e-5..nan)", "a smaller and a larger number"),
    ],
)
def test_a_distribution_that_cannot_be_drawn_from_is_refused(text, sentence):
    with pytest.raises(UserError, match=sentence):
        distribution(text, f"agent.lr={text}")


def test_options_of_one_algorithm_win_over_those_of_all():
    mbpo, sac = parse_grid("mbpo,sac", ["agent.lr=1e-4,3e-4", "mbpo:imagination.horizon=1,2", "sac:agent.lr=1e-3"])
    assert mbpo.axes == (Axis("agent.lr", ("1e-4", "3e-4")), Axis("imagination.horizon", ("1", "2")))
    assert sac.axes == (Axis("agent.lr", ("1e-3",)),)
    assert [arguments_of(each) for each in mbpo.combinations()][1] == ("agent.lr=1e-4", "imagination.horizon=2")


def test_an_environment_with_a_module_is_no_option_of_an_algorithm():
    assert parse_grid("sac", ["env=package.module:Task-v0"])[0].axes == (Axis("env", ("package.module:Task-v0",)),)


@pytest.mark.parametrize(
    ("algorithms", "argument", "sentence"),
    [
        ("sca", "agent.lr=1", "unknown algorithm 'sca'; did you mean 'sac'?"),
        ("sac,", "agent.lr=1", "sac,: expected names of algorithms with commas between them"),
        ("", "agent.lr=1", "'': expected names of algorithms with commas between them"),
        ("sac,sac", "agent.lr=1", "every algorithm once"),
        ("sac", "mbpo:agent.lr=1", "'mbpo' is none of the algorithms"),
        ("sac", "agent.lr", "cannot read 'agent.lr'"),
        ("sac", "agent.lr=1,,2", "a value is missing"),
        ("sac", "agent.lr=1e-4,0.0001", "expected different values, came 1e-4 twice"),
        ("sac", "seed=1,2", "--seeds 1..5"),
        ("sac", "run_dir=x", "--out"),
        ("sac", "agent.lr=00143,1", "leading zero"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence_that_names_it(algorithms, argument, sentence):
    with pytest.raises(UserError) as refused:
        parse_grid(algorithms, [argument])
    assert sentence in str(refused.value)


def test_an_option_that_is_set_twice_is_refused():
    with pytest.raises(UserError, match=r"agent\.lr is set twice"):
        parse_grid("sac", ["agent.lr=1", "agent.lr=2"])


def test_names_show_the_last_part_of_an_option_where_that_tells_it():
    assert labels_of(["agent.lr", "dynamics.lr", "loop.batch_size"]) == {
        "agent.lr": "agent.lr",
        "dynamics.lr": "dynamics.lr",
        "loop.batch_size": "batch_size",
    }
    assert group_name(["sac", "Hopper-v5", "lr=1e-4", "hidden=[64,64]"]) == "sac_Hopper-v5_lr=1e-4_hidden=64,64"


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=8, unique=True))
def test_different_values_have_different_directories_that_any_file_system_takes(pairs):
    groups = [
        Combination(group_name(["sac", f"a={one}", f"b={two}"]), "sac", "E", 1, (f"a={one}", f"b={two}"), {"a": one, "b": two})
        for one, two in pairs
    ]
    names = [group.name for group in with_different_names(groups)]
    assert len({name.lower() for name in names}) == len(pairs)
    assert all(len(name) <= LONGEST_NAME + 14 and "/" not in name and not name.startswith(".") for name in names)


@given(st.text(st.characters(exclude_characters="[]'\" "), min_size=1, max_size=200))
def test_a_name_is_whole_or_has_a_digest(text):
    name = group_name(["sac", text])
    assert name == f"sac_{text}" or name[-7] == "-"
    assert directory_name(name[:50]) == name[:50]
