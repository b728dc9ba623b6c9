"""Plans: search spaces, lists of trials, arms and pairs, grids."""

import itertools
import json
import math
from collections import Counter

import pytest
from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf, SweepDir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from joyful.records import InputError
from joyful.sweeper.plan import Plan, balanced_order, check_compositions, make_plan, override
from joyful.sweeper.plugin import DEFAULTS
from joyful.sweeper.settings import check_settings


def settings(**changes):
    keys = {"fold_key": "data.fold", "role_key": "role"}
    defaults = {name: value for name, value in DEFAULTS.items() if name not in ("defaults", "_target_", "check")}
    return check_settings(defaults | keys | changes)


def plan(*arguments, grid=False, config_loader=None, **changes):
    return make_plan(settings(**changes), arguments, grid, config_loader)


def parsed_value(text):
    """The value that Hydra reads from an override."""
    return OverridesParser.create().parse_override(text).value()


def test_a_search_space_from_the_command_line_and_from_the_file():
    parsed = plan(
        "loss=choice(mse,smoothl1)",
        "training.epochs=5",
        "model.hidden_size=range(8,33,step=8)",
        params={"weights.encoder_loss_weight": "tag(log, interval(0.001, 1.0))"},
    )
    assert parsed.space == {
        "loss": CategoricalDistribution(("mse", "smoothl1")),
        "model.hidden_size": IntDistribution(8, 32, step=8),
        "weights.encoder_loss_weight": FloatDistribution(0.001, 1.0, log=True),
    }
    assert parsed.n_trials == 20
    assert parsed.fixed == ("training.epochs=5",)
    assert parsed.overrides(3, {"loss": "mse"}) == ["training.epochs=5", "loss=mse"]
    assert parsed.varied() == set(parsed.space)


def test_a_value_on_the_command_line_fixes_what_the_file_searches():
    parsed = plan("a=0.5", "b=interval(0,1)", params={"a": "interval(0.0, 1.0)"})
    assert set(parsed.space) == {"b"}
    assert parsed.fixed == ("a=0.5",)


def test_deletions_and_additions_go_to_every_trial():
    parsed = plan("~weights.cl_loss_weight", "+sweeps=weights", "b=interval(0.0,1.0)")
    assert parsed.overrides(0, {"b": 0.5}) == ["+sweeps=weights", "~weights.cl_loss_weight", "b=0.5"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("a=interval(1.0,0.1)", r"low <= high"),
        ("a=interval(0.1,0.1)", r"a: expected a range, got the single value 0.1"),
        ("a=range(5,1)", r"at least one value"),
        ("a=tag(log,interval(0.0,1.0))", r"search space: .*low"),
        ("a=1", r"expected a search space, got none"),
    ],
)
def test_invalid_search_spaces_are_refused(argument, message):
    with pytest.raises(InputError, match=message):
        plan(argument)


def test_arms_share_seeds_and_start_with_the_calibration_of_the_baseline():
    parsed = plan("training.epochs=5", arms=["loss=mse weights=baseline", "loss=smoothl1"], pairs=2)
    assert parsed.n_trials == 7
    assert [" ".join(trial) for trial in parsed.trials] == [
        "loss=mse weights=baseline seed=9000 role=calibration",
        "loss=mse weights=baseline seed=9001 role=calibration",
        "loss=mse weights=baseline seed=9002 role=calibration",
        "loss=mse weights=baseline seed=1",
        "loss=smoothl1 seed=1",
        "loss=mse weights=baseline seed=2",
        "loss=smoothl1 seed=2",
    ]
    assert parsed.overrides(4, {}) == ["training.epochs=5", "loss=smoothl1", "seed=1"]
    assert parsed.varied() == {"seed", "loss"}
    assert plan(arms=["a=1", "a=2"], pairs=2, calibration=False).n_trials == 4


def test_folds_are_trained_for_each_seed_and_seeds_start_at_first_seed():
    parsed = plan(arms=["a=1", "a=2"], pairs=2, first_seed=8000, folds=[0, 3])
    assert [" ".join(trial) for trial in parsed.trials[4:]] == [
        "a=1 seed=9002 data.fold=0 role=calibration",
        "a=1 seed=9002 data.fold=3 role=calibration",
        *(f"a={arm} seed={seed} data.fold={fold}" for seed in (8000, 8001) for arm in (1, 2) for fold in (0, 3)),
    ]


@pytest.mark.parametrize("changes", [{"folds": [1, 1]}, {"folds": []}, {"first_seed": 8995}, {"first_seed": -1}])
def test_duplicate_folds_and_calibration_seeds_are_refused(changes):
    with pytest.raises(InputError, match=r"hydra\.sweeper\.(folds|first_seed)"):
        plan(arms=["a=1", "a=2"], **changes)


def test_more_pairs_extend_the_list():
    few, many = (plan(arms=["a=1", "a=2"], pairs=pairs).trials for pairs in (2, 5))
    assert many[: len(few)] == few


def test_a_list_of_trials_keeps_its_order_and_quotes():
    parsed = plan(trials=["loss=mse seed=1", "'data.synthetic.dialogues={train: 7, dev: 3, test: 3}'"])
    assert parsed.trials == (("loss=mse", "seed=1"), ("data.synthetic.dialogues={train: 7, dev: 3, test: 3}",))


def test_lists_and_spaces_do_not_mix():
    with pytest.raises(InputError, match=r"a list of trials .* or a search space, got both \(a\)"):
        plan("a=interval(0.0,1.0)", trials=["loss=mse"])
    with pytest.raises(InputError, match="expected one of trials, arms and params, got trials and params"):
        plan(trials=["loss=mse"], params={"a": "interval(0.0,1.0)"})
    with pytest.raises(InputError, match="two or more different arms"):
        plan(arms=["loss=mse", "loss=mse"])
    with pytest.raises(InputError, match=r"trials: .*close the quotes"):
        plan(trials=["'loss=mse"])


STRINGS = [
    "mse", "a b", " a", "a ", "a,b", "it's", 'a "quote"', "'x'", "\\", "a\\'", "\\\\n", "null", "true", "False", "1e-3", "12",
    "1_000", "inf", "nan", "", "[1,2]", "{a:1}", "a:b", "a=b", "choice(a,b)", "x)", "${seed}", "a${b", "$", "%", "~", "#",
    "/data/x.y", "-1", "a\nb", "ü", "1x",
]  # fmt: skip


@pytest.mark.parametrize("text", STRINGS)
def test_a_string_reaches_the_program_as_it_is(text):
    assert parsed_value(override("a", text)) == text
    assert parsed_value(override("a", [text, {"k": text}])) == [text, {"k": text}]


@pytest.mark.parametrize("text", ["mse", "hierarchical", "a-b_c.d", "/data/x.y", "${seed}", "a:b", "1x"])
def test_plain_words_have_no_quotes(text):
    assert override("a", text) == f"a={text}"


@pytest.mark.parametrize("value", [None, True, False, 3, -7, 0.1, 1e-7, 1e22, 0.1 + 0.2, [1, 2.5, None], {"b": [True]}])
def test_numbers_lists_and_dictionaries_are_exact(value):
    again = parsed_value(override("a", value))
    assert (again, type(again)) == (value, type(value))


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("a=choice('1e-3',x)", ["1e-3", "x"]),
        ("a='1e-3',x,null", ["1e-3", "x", None]),
        ("a=choice('null','a, b')", ["null", "a, b"]),
        ("a=choice([1,'2'],[x])", [[1, "2"], ["x"]]),
        ("a=choice({b:1},{b:'1'})", [{"b": 1}, {"b": "1"}]),
        ("a=choice(1e-3,2e-5)", [0.001, 2e-05]),
        ("a=choice(true,1.5,x)", [True, 1.5, "x"]),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_every_choice_reaches_the_program_with_its_type(argument, values, in_file):
    name, text = argument.split("=", 1)
    parsed = plan(params={name: text}) if in_file else plan(argument)
    # as stored and read again by Optuna
    choices = json.loads(json.dumps(parsed.space["a"].choices))
    read = [parsed_value(parsed.overrides(0, {"a": choice})[0]) for choice in choices]
    assert list(map(repr, read)) == list(map(repr, values))


def test_values_of_the_file_keep_their_types():
    parsed = plan("b=interval(0,1)", params={"a": None, "c": [1, "null", "x"], "d": 0.5, "e": True, "f": "'7'"})
    fixed = {text.split("=", 1)[0]: parsed_value(text) for text in parsed.fixed}
    assert fixed == {"a": None, "c": [1, "null", "x"], "d": 0.5, "e": True, "f": "7"}


def test_the_description_of_plain_choices_is_that_of_earlier_studies():
    parsed = plan("loss=choice(mse,smoothl1)", "a=1,2.5", "b=choice(a b,true)", "c=choice([1,2],[3])", "d='x',null")
    assert {name: d["attributes"]["choices"] for name, d in parsed.describe()["space"].items()} == {
        "a": [1, 2.5],
        "b": ["a b", True],
        "c": ["[1,2]", "[3]"],
        "d": ["'x'", "null"],
        "loss": ["mse", "smoothl1"],
    }


@pytest.fixture
def config_loader(tmp_path):
    (tmp_path / "loss").mkdir()
    (tmp_path / "config.yaml").write_text("{}")
    for name in ("mse", "smoothl1", "weighted_mse"):
        (tmp_path / f"loss/{name}.yaml").write_text(f"name: {name}")
    with initialize_config_dir(str(tmp_path)):
        compose("config")
        yield GlobalHydra.instance().config_loader()


@pytest.mark.parametrize(
    ("pattern", "options"),
    [("*", ("mse", "smoothl1", "weighted_mse")), ("[*mse],exclude=w*", ("mse",)), ("s*", ("smoothl1",))],
)
def test_glob_is_a_choice_of_the_options_of_a_group(config_loader, pattern, options):
    parsed = plan(f"+loss=glob({pattern})", config_loader=config_loader)
    assert parsed.space == {"+loss": CategoricalDistribution(options)}


@pytest.mark.parametrize("argument", ["loss=glob(x*)", "seed=glob(*)"])
def test_a_glob_without_options_is_refused(config_loader, argument):
    with pytest.raises(InputError, match=r"expected a pattern that matches an option of the config group (loss|seed)"):
        plan(argument, config_loader=config_loader)


def test_a_grid_has_every_combination_up_to_the_number_of_trials(caplog):
    caplog.set_level("INFO")
    parsed = plan("a=choice(1,2)", "b=range(0,3)", grid=True)
    assert parsed.n_trials == 6
    assert parsed.grid[0] == {"a": 1, "b": 0}
    assert len({tuple(point.values()) for point in parsed.grid}) == 6
    assert not caplog.messages
    few = plan("a=choice(1,2)", "b=range(0,3)", grid=True, n_trials=4)
    assert few.n_trials == 4
    assert few.grid == parsed.grid[:4]
    (message,) = caplog.messages
    assert message == "4 of 6 grid points are trained, spread over the grid; set hydra.sweeper.n_trials=6 for all"
    with pytest.raises(InputError, match="expected choices or ranges with a step"):
        plan("a=interval(0.0,1.0)", grid=True)


@pytest.mark.parametrize(
    "sizes", [(1,), (1, 5), (8,), (2, 4), (4, 2), (2, 2, 2), (3, 5, 2), (6, 4, 9), (8, 8), (7, 1, 7), (2,) * 8]
)
def test_the_first_points_of_a_grid_are_spread_over_each_axis(sizes):
    order = list(balanced_order(sizes))
    assert sorted(order) == list(itertools.product(*map(range, sizes)))
    assert order == list(balanced_order(sizes))
    counts = [Counter(dict.fromkeys(range(size), 0)) for size in sizes]
    for number, point in enumerate(order):
        for axis, (count, index) in enumerate(zip(counts, point, strict=True)):
            count[index] += 1
            assert max(count.values()) - min(count.values()) <= 1, (number, axis)
        if number == 1:  # the ends of each axis come first
            assert all(
                set(ends) == {0, size - 1} for ends, size in zip(zip(*order[:2], strict=True), sizes, strict=True)
            )


def test_half_of_an_axis_leaves_no_wide_gap():
    for size in range(2, 40):
        chosen = sorted(point[0] for point in itertools.islice(balanced_order([size]), math.ceil(size / 2) + 1))
        assert max(b - a for a, b in itertools.pairwise(chosen)) <= 4


def test_a_grid_of_an_earlier_version_continues_with_the_points_that_it_lacks():
    whole = plan("a=choice(1,2)", "b=range(0,4)", grid=True)
    earlier = {number: {"a": 1, "b": number} for number in range(4)}  # the order of earlier versions
    points = whole.with_points(earlier).grid
    assert list(points[:4]) == list(earlier.values())
    assert sorted(point["b"] for point in points[4:]) == [0, 1, 2, 3]
    assert {point["a"] for point in points[4:]} == {2}
    assert whole.with_points({}) is whole
    assert Plan(3, ()).with_points(earlier) == Plan(3, ())


def test_every_trial_of_a_list_and_both_ends_of_a_space_are_composed():
    seen = []

    def compose(overrides):
        seen.append(tuple(overrides))
        return OmegaConf.create({})

    check_compositions(plan("x=1", trials=["a=1", "b=2"]), compose, lambda job: None)
    assert seen == [("x=1", "a=1"), ("x=1", "b=2")]
    seen.clear()
    check_compositions(plan("a=interval(0.0,1.0)", "b=choice(u,v,w)"), compose, lambda job: None)
    between = "a=0.618033988749895"
    assert {item for trial in seen for item in trial} == {"a=0.0", "a=1.0", between, "b=u", "b=v", "b=w"}


@pytest.mark.parametrize(("subdir", "refused"), [("${name}", True), ("runs/${name}/x", True), ("7", False)])
def test_too_long_names_of_folders_are_refused(tmp_path, subdir, refused):
    def compose(overrides):
        hydra = OmegaConf.structured(HydraConf(sweep=SweepDir(dir=str(tmp_path / "new/sweep"), subdir=subdir)))
        return OmegaConf.create({"hydra": hydra, "name": "ü" * 100 + ",".join(overrides)})

    checked = plan("a=interval(0.0,1.0)", "b=choice(u,v)")
    check_compositions(checked, compose, lambda job: None)
    long = plan("a=interval(0.0,1.0)", f"b=choice(u,{'v' * 40})")
    if not refused:
        check_compositions(long, compose, lambda job: None)
        return
    message = (
        r"^a trial with a=0.618033988749895 b=v+: hydra\.sweep\.subdir: expected folder names of at most 255 bytes, "
        r"got \d+ .*exclude_keys"
    )
    with pytest.raises(InputError, match=message):
        check_compositions(long, compose, lambda job: None)


def test_overrides_that_do_not_compose_are_named():
    def compose(overrides):
        raise ValueError("no\n such key")

    with pytest.raises(InputError, match=r"^trial 0 \(a=1 b=2\): no such key$"):
        check_compositions(plan("x=1", trials=["a=1 b=2"]), compose, lambda job: None)
