"""Configurations that are derived are those that Hydra composes."""

from __future__ import annotations

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesdiff.config import derive as deriving
from bayesdiff.config.compose import CONF, compose
from bayesdiff.config.derive import derive
from bayesdiff.config.identity import run_name
from bayesdiff.config.words import override
from bayesdiff.core.errors import UserError
from bayesdiff.studies.plan import load_study, models_of, study_names


def equal(overrides: tuple[str, ...]) -> None:
    """Value by value and type by type: 1 and 1.0 have different hashes."""
    derived, asked = derive(overrides), compose(overrides)
    assert repr(derived) == repr(asked)
    assert run_name(derived) == run_name(asked)


@pytest.mark.parametrize("name", study_names())
def test_runs_of_the_shipped_studies_are_derived_as_they_compose(name: str) -> None:
    for model in models_of(name):
        cells = load_study(name, model).cells
        equal(cells[-1 if model == "toybox" else len(cells) // 2].overrides)


@pytest.mark.slow
@pytest.mark.parametrize("name", study_names())
def test_every_toybox_run_is_derived_as_it_composes(name: str) -> None:
    for cell in load_study(name).cells:
        equal(cell.overrides)


VALUES = {
    "seed": st.integers(0, 10**6), "method.learning_rate": st.floats(1e-9, 1.0) | st.integers(1, 5),
    "shots.count": st.none() | st.integers(1, 9),
    "data.class_noun": st.text(alphabet="dog $(=,')[]é", min_size=1, max_size=9).filter(str.strip),
    "data.subject": st.text(alphabet="ab1 ", max_size=5),
    "bnn.kl": st.sampled_from(["elbo", "reverse"]), "metrics.lpips": st.booleans() | st.sampled_from(["on", "off", "yes"]),
    "metrics.extra": st.lists(st.sampled_from(["a.b", "c.d"]), max_size=2), "bnn.prior_sigma": st.sampled_from([1, 1.0, "0.01"]),
}  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(st.fixed_dictionaries({}, optional=VALUES), st.sampled_from(["off", "on", "ema"]), st.booleans())
def test_any_values_are_derived_as_they_compose(values: dict[str, object], arm: str, first: bool) -> None:
    words = [override(key, value) for key, value in values.items()]
    equal(("+experiment=smoke", *([f"bnn={arm}", *words] if first else [*words, f"bnn={arm}"])))


@pytest.mark.parametrize(
    "words",
    [
        ("seed=x",),
        ("sed=1",),
        ("bnn=nothing",),
        ("bnn.kind=nothing",),
        ("data=folder",),
        ("method.learning_rate=-1",),
        ("seed=1,2",),
        ("paths.runs=null",),
    ],
)
def test_what_does_not_compose_is_refused_in_the_same_words(words: tuple[str, ...]) -> None:
    with pytest.raises((UserError, HydraException)) as asked:
        compose(("+experiment=smoke", *words))
    with pytest.raises(type(asked.value)) as derived:
        derive(("+experiment=smoke", *words))
    assert str(derived.value) == str(asked.value)


def test_words_that_do_more_than_set_a_value_are_left_to_hydra() -> None:
    for words in (("++seed=3",), ("experiment_name=${data.subject}",), ("method.name=lora", "method=oft")):
        equal(("+experiment=smoke", *words))


@pytest.mark.parametrize(
    "words",
    [
        ("paths.runs=elsewhere",), ("paths.runs='~/a, b'", "paths.cache=there"), ("paths.runs=3",), ("bnn=on", "paths.runs=/x/y"),
        ("bnn=on", "model.sigma_learning_rate_factor=3"),
        ("bnn=on", "model.sigma_learning_rate_factor=3", "bnn.sigma_learning_rate_factor=2"),
    ],
)  # fmt: skip
def test_settings_that_are_made_of_others_follow_them(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    equal(("+experiment=smoke", *words))
    monkeypatch.setattr(deriving, "compose", lambda words: pytest.fail("composed"))
    derive(("+experiment=smoke", *words))


def test_many_runs_compose_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    deriving._of_groups.cache_clear()
    monkeypatch.setattr(deriving, "composed", lambda words: asked.append(words) or deriving_composed(words))
    deriving_composed = compose.__globals__["composed"]
    names = {run_name(derive(("+experiment=smoke", f"seed={seed}"))) for seed in range(50)}
    assert (len(names), len(asked)) == (50, 1)


def test_configurations_share_no_lists() -> None:
    first, second = (derive(("+experiment=smoke",)) for _ in range(2))
    first.sampler.prompts.append("x")
    first.method.targets.append("x")
    assert "x" not in (*second.sampler.prompts, *second.method.targets)


def test_a_hydra_job_keeps_its_own_state_while_others_are_composed() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        job = GlobalHydra.instance().hydra
        assert compose(("+experiment=smoke", "seed=4")).seed == 4
        assert GlobalHydra.instance().hydra is not None
        assert type(GlobalHydra.instance().hydra) is type(job)
    assert not GlobalHydra.instance().is_initialized()
    assert compose(("+experiment=smoke", "seed=5")).seed == 5
    assert not GlobalHydra.instance().is_initialized()
