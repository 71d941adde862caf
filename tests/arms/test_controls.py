"""The controls do what they say, as functions of (seed, step), and nothing while sampling."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import CONTROLS, Make, differing, encoded, silent, tiny_inputs, tiny_training, tiny_unet, train, trained, weights
from torch import nn

from bayesdiff.arms.dropout import set_dropout
from bayesdiff.arms.ema import WeightAverage
from bayesdiff.arms.l2_to_pretrained import squared_distance
from bayesdiff.arms.protocol import Arm, Site
from bayesdiff.arms.registry import arm_of
from bayesdiff.config.schema import BnnConf, Config
from bayesdiff.diffusion.batch import Conditioning
from bayesdiff.training.batches import batch_at


def configured(make_config: Make, control: str, *more: str) -> Config:
    return make_config("+experiment=smoke", f"bnn={control}", *more)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_trains_otherwise_than_the_plain_arm_and_the_same_twice(make_config: Make, control: str) -> None:
    plain, first = weights(trained(make_config("+experiment=smoke"), 4)), trained(configured(make_config, control), 4)
    torch.manual_seed(99)
    again = trained(configured(make_config, control), 4)
    with first.shown(), again.shown():
        assert differing(weights(first), weights(again)) == []
        assert not torch.equal(weights(first)["conv_in.weight"], plain["conv_in.weight"])


@pytest.mark.parametrize("control", CONTROLS)
def test_training_a_control_in_parts_gives_the_same_bits(make_config: Make, control: str) -> None:
    cfg = configured(make_config, control)
    state = tiny_training(cfg)
    for start, stop in ((0, 1), (1, 4)):
        train(state, cfg, start, stop, silent)
    assert differing(weights(state), weights(trained(cfg, 4))) == []


def parameters(*values: float) -> list[nn.Parameter]:
    return [nn.Parameter(torch.full((2,), value)) for value in values]


def test_the_average_is_the_recursion_with_a_growing_decay() -> None:
    (weight,) = trained_weights = parameters(1.0)
    average, expected = WeightAverage(trained_weights, 0.5), 1.0
    for step, value in enumerate((2.0, -1.0, 4.0, 0.0, 7.0, 3.0, 5.0, 1.0, 8.0)):
        with torch.no_grad():
            weight.fill_(value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert average.average[0].tolist() == pytest.approx([expected] * 2)


def test_the_average_is_shown_and_the_weights_are_put_back() -> None:
    (weight,) = trained_weights = parameters(1.0)
    average = WeightAverage(trained_weights, 0.9)
    with torch.no_grad():
        weight.fill_(3.0)
    with pytest.raises(RuntimeError), average.shown():
        assert weight.tolist() == [1.0, 1.0]
        raise RuntimeError
    assert weight.tolist() == [3.0, 3.0]
    assert average.average[0].tolist() == [1.0, 1.0]


def test_a_run_with_an_average_trains_the_plain_weights_underneath(make_config: Make) -> None:
    plain, averaged = trained(make_config("+experiment=smoke"), 4), trained(configured(make_config, "ema"), 4)
    assert differing(weights(plain), weights(averaged)) == []
    with averaged.shown():
        assert differing(weights(plain), weights(averaged)) != []
    assert differing(weights(plain), weights(averaged)) == []


def attached(conf: BnnConf, empty: Conditioning | None = None) -> Arm:
    """An arm that needs no model."""
    site = Site(nn.Identity(), [], conf, 0, list, 1.0, lambda: empty)  # type: ignore[arg-type, return-value]
    return arm_of(conf.kind).attach(site)


def test_the_empty_prompt_is_shown_in_the_asked_share_of_rows_and_nothing_else_changes() -> None:
    batch, empty = batch_at(5, 0, 2000, 1000, encoded(3), None), Conditioning(torch.zeros(1, 5, 8))
    arm = attached(BnnConf("prompt_dropout", prompt_dropout=0.3), empty)
    shown = arm.batch(batch, 5)
    dropped = (shown.text.states == 0).all((1, 2))
    assert float(dropped.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(shown.text.states[~dropped], batch.text.states[~dropped])
    assert (shown.latents is batch.latents, shown.noise is batch.noise, shown.timesteps is batch.timesteps) == (True, True, True)
    assert torch.equal(arm.batch(batch, 5).text.states, shown.text.states)
    assert not torch.equal(arm.batch(batch, 6).text.states, shown.text.states)


def test_the_empty_prompt_of_sdxl_loses_its_added_conditions_too() -> None:
    text = Conditioning(torch.ones(4, 5, 8), {"text_embeds": torch.ones(4, 6), "time_ids": torch.full((4, 6), 64.0)})
    empty = Conditioning(torch.zeros(1, 5, 8), {"text_embeds": torch.zeros(1, 6), "time_ids": torch.full((1, 6), 64.0)})
    arm = attached(BnnConf("prompt_dropout", prompt_dropout=0.99), empty)
    shown = arm.batch(replace(batch_at(0, 0, 4, 1000, encoded(4), None), text=text), 1).text
    assert torch.equal(shown.added["text_embeds"][:, 0], shown.states[:, 0, 0])
    assert float(shown.states.sum()) < 4 * 5 * 8
    assert torch.equal(shown.added["time_ids"], text.added["time_ids"])


def test_input_noise_has_the_asked_size_and_leaves_the_rest_alone() -> None:
    batch = batch_at(3, 0, 64, 1000, encoded(5), None)
    arm = attached(BnnConf("input_noise", input_noise=0.3))
    noisy = arm.batch(batch, 3)
    assert float((noisy.latents - batch.latents).std()) == pytest.approx(0.3, rel=0.02)
    assert noisy.noise is batch.noise
    assert noisy.timesteps is batch.timesteps
    assert torch.equal(noisy.latents, arm.batch(batch, 3).latents)
    assert not torch.equal(noisy.latents, arm.batch(batch, 4).latents)


def test_dropout_acts_in_training_alone() -> None:
    unet = tiny_unet()
    assert set_dropout(unet, 0.5) > 10
    with torch.no_grad():
        expected = tiny_unet()(**tiny_inputs()).sample
        assert torch.equal(unet(**tiny_inputs()).sample, expected)
        assert not torch.equal(unet.train()(**tiny_inputs()).sample, expected)


def test_dropout_leaves_the_global_generator_alone(make_config: Make) -> None:
    before = torch.get_rng_state()
    state = tiny_training(cfg := configured(make_config, "dropout"))
    torch.set_rng_state(before)
    train(state, cfg, 0, 2, silent)
    assert torch.equal(before, torch.get_rng_state())


def test_the_tether_is_the_summed_squared_distance() -> None:
    assert float(squared_distance(parameters(1.0, 5.0), [torch.zeros(2), torch.full((2,), 3.0)]).detach()) == pytest.approx(2 + 8)


def test_a_strong_tether_holds_the_weights(make_config: Make) -> None:
    def moved(control: str, *more: str) -> float:
        state = trained(configured(make_config, control, *more), 12)
        return float(squared_distance(state.trained, [p.detach() for p in tiny_unet().parameters()]).detach())

    assert moved("l2_to_pretrained", "bnn.l2_weight=1000") < 0.5 * moved("off")


def test_lr_decay_ends_at_zero(make_config: Make) -> None:
    rates: list[float] = []
    cfg = configured(make_config, "lr_decay")
    train(tiny_training(cfg), cfg, 0, 20, lambda _, parts: rates.append(parts["learning_rate"]))
    assert rates == pytest.approx([5e-4 * (20 - step) / 20 for step in range(20)])


@torch.no_grad()
def test_input_noise_moves_the_toybox_as_much_as_the_weight_noise_it_is_a_control_for(make_config: Make) -> None:
    """Mean squared change of the predictions on a training photograph, over timesteps, before training."""
    from bayesdiff.arms.gaussian import draw_weights, use_mean
    from bayesdiff.diffusion.batch import Batch, encode_pictures
    from bayesdiff.diffusion.pipeline import load_pipeline
    from bayesdiff.diffusion.subject import load_subject
    from bayesdiff.training.batches import batch_at
    from bayesdiff.training.loop import prepare

    cfg, conf = make_config("bnn=on"), make_config("bnn=input_noise").bnn
    subject = load_subject(cfg.data, 1, 0, cfg.model.resolution)
    pipe = load_pipeline(cfg.model, torch.device("cpu"))
    pictures = encode_pictures(pipe, [photo.image for photo in subject.photos], f"a photo of qwe {subject.class_noun}")
    state = prepare(pipe, cfg, pictures, None)

    def predicted(batch: Batch) -> torch.Tensor:
        noisy = state.noise_schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
        return pipe.unet(noisy, batch.timesteps, encoder_hidden_states=batch.text.states).sample

    by_weights, by_input, input_noise = [], [], attached(conf)
    for step in range(8):
        batch = batch_at(step, 0, 4, 1000, pictures, None)
        plain = predicted(batch)
        by_input.append((predicted(input_noise.batch(batch, step)) - plain).square().mean().item())
        draw_weights(state.layers, 0, step)
        by_weights.append((predicted(batch) - plain).square().mean().item())
        use_mean(state.layers)
    assert 0.7 < sum(by_input) / sum(by_weights) < 1.4
