"""What the configuration accepts, refuses, and counts as the same run."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from bayesdiff.config import identity
from bayesdiff.config.compose import CONF, compose, of_record, resolve
from bayesdiff.config.derive import derive
from bayesdiff.config.identity import arm_name, as_dict, run_key, run_name
from bayesdiff.config.schema import Config, Keep, SamplerPrecision
from bayesdiff.core.errors import UserError

Make = Callable[..., Config]
GROUPS = {path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in sorted(CONF.iterdir()) if path.is_dir()}
EXPERIMENTS = GROUPS.pop("experiment")
COMPOSED: dict[tuple[str, ...], Config] = {}


@pytest.fixture
def make(make_config: Make) -> Make:
    """``make_config`` that composes the same overrides only once."""

    def build(*overrides: str) -> Config:
        if overrides not in COMPOSED:
            COMPOSED[overrides] = make_config(*overrides)
        return copy.deepcopy(COMPOSED[overrides])

    return build


def changed(cfg: Config, key: str, value: Any) -> Config:
    """The same configuration with one value replaced, validated again."""
    raw = OmegaConf.create(as_dict(cfg))
    OmegaConf.update(raw, key, value)
    return resolve(raw)


def differing(a: Any, b: Any, prefix: str = "") -> set[str]:
    """Dotted keys whose values differ between two nested dictionaries."""
    if isinstance(a, dict) and isinstance(b, dict):
        return {key for name in a.keys() | b.keys() for key in differing(a.get(name), b.get(name), f"{prefix}.{name}".lstrip("."))}
    return set() if a == b else {prefix}


@pytest.mark.parametrize("row", range(max(len(names) for names in GROUPS.values())))
def test_every_file_of_every_group_composes(make: Make, row: int) -> None:
    chosen = {group: names[row % len(names)] for group, names in GROUPS.items()}
    cfg = make(*[f"{group}='{name}'" for group, name in chosen.items()], "data.path=photos", "data.class_noun=dog", "data.subject=dog")
    assert cfg.data.source.value == chosen["data"]
    assert cfg.tracker.name.value == chosen["tracker"]
    assert cfg.model.name == chosen["model"]
    assert cfg.shots.count == {"all": None, "one": 1, "two": 2, "four": 4, "six": 6}[chosen["shots"]]
    assert arm_name(vars(cfg.bnn)) == {"off": "plain", "on": "bnn", "released": "bnn"}.get(chosen["bnn"], chosen["bnn"])
    assert cfg.method.name == chosen["method"]
    assert cfg.schedule.checkpoints[-1] == cfg.schedule.steps


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_is_named_by_its_file(make: Make, name: str) -> None:
    assert make(f"+experiment={name}").experiment_name == name.removesuffix("_15"), "committed runs keep their experiment's name"


def test_a_number_of_shots_is_a_group_option_by_name_and_a_key_by_number(make: Make) -> None:
    assert make("shots=two").shots.count == 2
    assert make("shots.count=3").shots.count == 3


def test_every_group_of_the_schema_has_files() -> None:
    assert set(GROUPS) == {f.name for f in fields(Config) if is_dataclass(f.default_factory)}


def test_an_experiment_is_not_among_the_defaults(make: Make) -> None:
    defaults = OmegaConf.load(CONF / "config.yaml").defaults
    assert not any("experiment" in str(entry) for entry in defaults)
    plain, curve = make(), make("+experiment=corruption_curve")
    assert (plain.experiment_name, curve.experiment_name) == ("run", "corruption_curve")
    assert len(curve.schedule.checkpoints) > len(plain.schedule.checkpoints)
    assert (curve.shots.count, plain.shots.count) == (1, None)


def test_an_unknown_key_fails_also_when_added(make: Make) -> None:
    with pytest.raises(UserError, match="sead"):
        make("+sead=1")
    with pytest.raises(HydraException):
        make("sead=1")


@pytest.mark.parametrize("key", ["sead", "bnn.sigma", "schedule.checkpoint", "extra.deep.key"])
def test_an_unknown_key_is_named(make: Make, key: str) -> None:
    raw = OmegaConf.create(as_dict(make()))
    OmegaConf.update(raw, key, 1, force_add=True)
    with pytest.raises(UserError, match=key.split(".deep")[0]) as caught:
        resolve(raw)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", "many"), ("tracker.name", "pigeon"), ("tracker.mode", "sometimes"), ("method.name", "wish"), ("shots.count", 1.5)],
)
def test_a_value_of_the_wrong_type_fails_and_is_named(make: Make, key: str, value: Any) -> None:
    with pytest.raises(UserError, match=key):
        changed(make(), key, value)


def test_a_missing_value_is_named(make: Make) -> None:
    with pytest.raises(UserError, match=r"model\.path"):
        changed(make(), "model.path", "???")


RANGES: list[tuple[str, Any]] = [
    *((key, 0) for key in ("method.learning_rate", "bnn.prior_sigma", "training.batch_size", "training.max_grad_norm", "method.rank")),
    *((key, 0) for key in ("schedule.log_every", "sampler.steps", "sampler.images_per_prompt", "sampler.batch_size")),
    *((key, 0) for key in ("metrics.batch_size", "method.class_images", "shots.count", "detector.alpha")),
    *((key, -1) for key in ("method.learning_rate", "bnn.kl_weight", "method.prior_loss_weight")),
    ("method.learning_rate", float("nan")),
    ("bnn.sigma_init", float("nan")),
    ("detector.alpha", 1.0),
    ("sampler.prompts", []),
    ("schedule.checkpoints", []),
    ("schedule.checkpoints", [0, 50, 50, 100]),
    ("schedule.checkpoints", [50, 0, 100]),
    ("schedule.checkpoints", [-1, 100]),
    ("schedule.checkpoints", [0, 50]),
    ("schedule.steps", 101),
]


@pytest.mark.parametrize(("key", "value"), RANGES)
def test_a_value_out_of_range_fails_and_is_named(make: Make, key: str, value: Any) -> None:
    with pytest.raises(UserError, match=key) as caught:
        changed(make(), key, value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_metric_that_is_not_measured_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"detector\.metric"):
        changed(make(), "detector.metric", "fid")


@pytest.mark.parametrize(("key", "given"), [("data.class_noun", "data.path=photos"), ("data.path", "data.class_noun=dog")])
def test_an_own_folder_needs_a_path_and_a_noun(make: Make, key: str, given: str) -> None:
    with pytest.raises(UserError, match=key):
        make("data=folder", given)


@pytest.mark.parametrize(("key", "value"), [("bnn.kl_weight", 0.0), ("shots.count", None), ("shots.count", 1), ("detector.alpha", 0.01)])
def test_a_value_at_the_edge_is_accepted(make: Make, key: str, value: Any) -> None:
    assert OmegaConf.select(OmegaConf.create(as_dict(changed(make(), key, value))), key) == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("paths.runs", "elsewhere"),
        ("paths.cache", "elsewhere"),
        ("tracker.name", "none"),
        ("tracker.mode", "online"),
        ("device", "cpu"),
        ("schedule.keep", "all"),
        ("schedule.log_every", 1),
        ("experiment_name", "other"),
        ("model.size", "9 GB"),
        ("model.gated", True),
    ],
)
def test_the_run_key_ignores_what_cannot_change_results(make: Make, key: str, value: Any) -> None:
    assert run_key(changed(make(), key, value)) == run_key(make())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("method.learning_rate", 1e-4),
        ("bnn.kind", "gaussian"),
        ("bnn.sigma_init", 0.02),
        ("data.subject", "toy_dog"),
        ("shots.count", 1),
        ("sampler.guidance_scale", 5.0),
        ("schedule.checkpoints", [0, 100]),
        ("metrics.dino", "vit_small_patch16_224.dino"),
        ("sampler.precision", SamplerPrecision.bf16),
        ("metrics.precision", SamplerPrecision.bf16),
    ],
)
def test_the_run_key_changes_with_what_changes_results(make: Make, key: str, value: Any) -> None:
    assert run_key(changed(make(), key, value)) != run_key(make())


def test_an_option_that_is_added_later_leaves_old_names_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting at its default is not in the key: as if it had never been there."""

    before = run_key(make())
    content = identity.key_content
    monkeypatch.setattr(
        identity, "key_content", lambda cfg: {**content(cfg), "bnn": {k: v for k, v in content(cfg)["bnn"].items() if k != "dropout"}}
    )
    assert run_key(make()) == before


def test_the_arms_of_a_pair_differ_only_in_bnn(make: Make) -> None:
    arms = [as_dict(make("+experiment=corruption_curve", f"bnn={arm}")) for arm in ("off", "on")]
    assert differing(*arms) == {"bnn.kind"}


@pytest.mark.parametrize("method", ["dreambooth", "lora", "oft"])
@pytest.mark.parametrize("arm", GROUPS["bnn"])
def test_every_arm_differs_from_plain_fine_tuning_only_in_its_own_group(make: Make, method: str, arm: str) -> None:
    plain, other = (as_dict(make("+experiment=corruption_curve", f"method={method}", f"bnn={name}")) for name in ("off", arm))
    assert all(key.startswith("bnn.") for key in differing(plain, other))


ARM_CHECKS = [
    ("bnn.time_layers", True, "leave it false"),
    ("method.alpha", 8.0, "only lora"),
    ("training.lr_warmup_steps", 10, "constant_with_warmup"),
    ("sampler.sample_weights", 2, "bnn=on"),
    ("training.lr_schedule", "cosine", "leave it constant"),
]


@pytest.mark.parametrize(("key", "value", "remedy"), ARM_CHECKS)
def test_settings_that_an_arm_cannot_have_are_refused(make: Make, key: str, value: Any, remedy: str) -> None:
    with pytest.raises(UserError, match=f"{key}=.*{remedy}"):
        changed(make("bnn=lr_decay", "method=oft"), key, value)


def test_8_bit_adamw_leaves_weights_as_they_lie(make: Make) -> None:
    """Its first step makes weights contiguous: those with channels innermost would move, and recorded graphs read where they were."""
    assert changed(make(), "training.channels_last", True).training.channels_last
    with pytest.raises(UserError, match=r"training\.channels_last=true: 8-bit AdamW .*; leave it false, or give training\.optimizer=adamw"):
        changed(make("training=low_memory"), "training.channels_last", True)


UNREAD = [
    (["method.rank=8"], r"method\.rank=8: dreambooth trains every weight"), (["method.targets=[to_q]"], r"method\.targets=.*dreambooth"),
    *(([f"bnn={arm}", "bnn.kl_weight=0.1"], r"bnn\.kl_weight=0\.1: only Gaussian weights have a KL") for arm in ("off", "ema", "dropout")),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), UNREAD)
@pytest.mark.parametrize("composed_by", [derive, compose])
def test_settings_that_nothing_reads_are_refused_for_a_new_run(composed_by: Callable[..., Config], words: list[str], said: str) -> None:
    """They gave the run another key and nothing else."""
    with pytest.raises(UserError, match=said):
        composed_by(("method=dreambooth", *words))


@pytest.mark.parametrize(
    "words", [["method=lora", "method.rank=8"], ["method=oft", "method.targets=[to_q]"], ["bnn=on", "bnn.kl_weight=0.1"]]
)
def test_settings_that_something_reads_are_taken(make: Make, words: list[str]) -> None:
    make(*words)


@pytest.mark.parametrize(("key", "value"), [("method.rank", 8), ("bnn.kl_weight", 0.1)])
def test_a_record_with_such_a_setting_is_read_as_before(make: Make, key: str, value: Any) -> None:
    content, (group, name) = as_dict(make()), key.split(".")
    content[group][name] = value
    assert getattr(getattr(of_record(content, Path("record.json")), group), name) == value


def test_a_divergence_needs_a_sigma(make: Make) -> None:
    assert changed(make("bnn=on"), "bnn.sigma_init", 0.0).bnn.sigma_init == 0
    with pytest.raises(UserError, match=r"bnn\.sigma_init=0: its KL is infinite"):
        changed(changed(make("bnn=on"), "bnn.kl_weight", 0.1), "bnn.sigma_init", 0.0)


def test_the_run_name_reads_well_and_ends_with_the_key(make: Make) -> None:
    cfg = changed(make("bnn=on", "shots.count=2", "seed=7"), "data.subject", "my dog/../x")
    name = run_name(cfg)
    assert name == f"toybox-dreambooth-bnn-my_dog_.._x-2shot-seed7-{run_key(cfg)}"
    assert len(run_key(cfg)) == 12


def test_plain_values_resolve_to_the_same_configuration(make: Make) -> None:
    cfg = make("schedule.keep=best")
    assert cfg.schedule.keep is Keep.best
    assert resolve(OmegaConf.create(as_dict(cfg))) == cfg


@pytest.mark.parametrize(
    "words", [(), ("+experiment=grain", "bnn=on"), ("+evaluations={a:{weights:ema,guidance_scale:1}}", "+bnn.options={x:[1,{y:null}]}")]
)
def test_a_configuration_as_plain_values_is_what_json_gives_back(make: Make, words: tuple[str, ...]) -> None:
    cfg = make(*words)
    assert as_dict(cfg) == json.loads(json.dumps(asdict(cfg)))
    assert json.dumps(as_dict(cfg)) == json.dumps(asdict(cfg)), "types too"
