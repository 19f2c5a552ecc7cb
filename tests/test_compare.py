"""The comparison is fair, its training is plain SGD, and its numbers are what they say."""

import dataclasses
import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fanin
from fanin.errors import ArgumentError, ExpressionError, UnknownNameError
from fanin.lab import LINE_UP, RATES, compare, tasks
from fanin.lab.network import (
    ACTIVATIONS,
    Network,
    activation_called,
    initialize,
    layer_name,
    passed,
    trace,
)
from fanin.lab.pretrained import pretrained
from fanin.lab.statistics import paired_difference, t_interval
from fanin.lab.summary import (
    best_rate,
    common_findings,
    first_reached,
    has_diverged,
    learned_from,
    loss_curve,
    rank,
    trained_width,
)
from fanin.lab.training import History, batch_order, evaluation_steps, train
from fanin.report import compare_html

SMALL = {"depth": 2, "width": 16, "steps": 40, "seeds": 2, "rates": (0.01, 0.1)}


RELU = (lambda z: np.maximum(z, 0), lambda z: z > 0)
TANH = (np.tanh, lambda z: 1 - np.tanh(z) ** 2)


def numpy_passes(weights, biases, x, y, phi, slope):
    """Loss of each example, gradients by weights and biases of their mean, and by each layer's
    outputs of their sum, in float64."""
    inputs, outputs, values = [], [], x
    for w, b in zip(weights, biases, strict=True):
        inputs.append(values)
        outputs.append(values @ w + b)
        values = phi(outputs[-1])
    top = outputs[-1] - outputs[-1].max(axis=1, keepdims=True)
    share = np.exp(top) / np.exp(top).sum(axis=1, keepdims=True)
    losses = -np.log(share[np.arange(len(y)), y])
    signals = [share - np.eye(share.shape[1])[y]]
    for w, below in zip(weights[:0:-1], outputs[-2::-1], strict=True):
        signals.insert(0, (signals[0] @ w.T) * slope(below))
    by_weight = [a.T @ g / len(y) for a, g in zip(inputs, signals, strict=True)]
    by_bias = [g.mean(axis=0) for g in signals]
    return losses, by_weight, by_bias, outputs, signals


def numpy_sgd(network, x, y, batches, rate, phi, slope):
    """Train one network, one step after the other."""
    weights = [w.astype(np.float64) for w in network.weights]
    biases = [b.astype(np.float64) for b in network.biases]
    losses = []
    for batch in batches:
        loss, by_weight, by_bias, *_ = numpy_passes(weights, biases, x[batch], y[batch], phi, slope)
        losses.append(loss.mean())
        weights = [w - rate * g for w, g in zip(weights, by_weight, strict=True)]
        biases = [b - rate * g for b, g in zip(biases, by_bias, strict=True)]
    return weights, biases, losses


def numpy_scores(weights, biases, x, y, phi, slope):
    """Accuracy and loss of one network."""
    losses, _, _, outputs, _ = numpy_passes(weights, biases, x.astype(np.float64), y, phi, slope)
    return np.mean(outputs[-1].argmax(axis=1) == y), losses.mean()


def starts(expression, sizes, seeds):
    return [initialize(fanin.get(expression), sizes, seed) for seed in range(seeds)]


# training


def test_training_all_networks_at_once_equals_training_each_alone():
    """Forty-five float32 steps of a smooth network against float64: rounding errors of 6e-8 grow to
    about 4e-7. A ReLU would do, but for the unit that a rounding error switches on or off."""
    task = tasks.load("digits")
    rates, steps, batch = (0.01, 0.05), 45, 32  # in parts of two steps, the last of one
    networks = starts("he_normal", (64, 24, 24, 24, 10), seeds=3)
    history = train(networks, task, phi=activation_called("tanh"), rates=rates, steps=steps, batch=batch)
    order = batch_order(len(task.train[1]), batch, steps, seeds=3)
    for r, rate in enumerate(rates):
        for s, network in enumerate(networks):
            weights, biases, losses = numpy_sgd(network, *task.train, order[:, s], rate, *TANH)
            np.testing.assert_allclose(history.losses[r, s], losses, rtol=5e-6)
            for layer, weight in enumerate(weights):
                found = np.asarray(history.networks.weights[layer][r, s])
                np.testing.assert_allclose(found, weight, atol=5e-6)
            for layer, bias in enumerate(biases):
                found = np.asarray(history.networks.biases[layer][r, s])
                np.testing.assert_allclose(found, bias, atol=5e-6)
            right, _ = numpy_scores(weights, biases, *task.test, *TANH)
            # one example in 360 may sit on the border between two classes
            assert history.accuracy[r, s, -1] == pytest.approx(right, abs=1.01 / 360)
            right, loss = numpy_scores(weights, biases, *task.validation, *TANH)
            assert history.validation_accuracy[r, s] == pytest.approx(right, abs=1.01 / 359)
            assert history.validation_loss[r, s] == pytest.approx(loss, rel=5e-6)


def test_training_leaves_its_starts_alone():
    task = tasks.load("digits")
    networks = starts("he_normal", (64, 8, 10), seeds=2)
    before = [w.copy() for network in networks for w in network.weights]
    train(networks, task, phi=activation_called("relu"), rates=(0.1,), steps=3, batch=8)
    after = [w for network in networks for w in network.weights]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 30), st.integers(1, 3))
def test_batches_go_through_all_examples_before_any_comes_again(n, batch, steps, seeds):
    order = batch_order(n, batch, steps, seeds)
    assert order.shape == (steps, seeds, batch)
    for seed in range(seeds):
        stream = order[:, seed].ravel()
        for begin in range(0, len(stream), n):
            epoch = stream[begin : begin + n]
            assert len(set(epoch.tolist())) == len(epoch)
            assert set(epoch.tolist()) <= set(range(n))


def test_every_seed_has_its_own_order():
    order = batch_order(50, 8, steps=5, seeds=3)
    assert len({order[:, seed].tobytes() for seed in range(3)}) == 3


def test_more_steps_or_seeds_only_add_batches():
    longer = batch_order(50, 8, steps=20, seeds=3)
    assert np.array_equal(longer[:5, :2], batch_order(50, 8, steps=5, seeds=2))


@pytest.mark.parametrize("steps", [1, 3, 19, 20, 21, 400, 401])
def test_evaluations_begin_at_zero_and_end_at_the_end(steps):
    at = evaluation_steps(steps)
    assert at[0] == 0
    assert at[-1] == steps
    assert all(a < b for a, b in pairwise(at))


# the start


def test_weights_are_fanins_own_and_biases_zero():
    network = initialize(fanin.get("he_normal"), (5, 7, 7, 3), seed=4)
    for layer, (shape, name) in enumerate(
        [((5, 7), "layers.0.weight"), ((7, 7), "layers.1.weight"), ((7, 3), "head.weight")]
    ):
        expected = fanin.get("he_normal")(shape, seed=4, name=name, axes="io")
        assert layer_name(layer, depth=2) == name
        assert network.weights[layer].tobytes() == expected.astype(np.float32).tobytes()
    assert not any(bias.any() for bias in network.biases)


def test_the_trace_is_the_gradient_of_each_examples_loss():
    x, y = (part[:40] for part in tasks.load("digits").train)
    network = initialize(fanin.get("he_normal"), (64, 12, 12, 10), seed=1)
    found = passed(network, x, y, activation_called("relu"))
    weights = [w.astype(np.float64) for w in network.weights]
    _, _, _, outputs, signals = numpy_passes(weights, network.biases, x.astype(np.float64), y, *RELU)
    for layer, z, g in zip(found, outputs, signals, strict=True):
        np.testing.assert_allclose(layer.outputs, z, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(layer.gradient, g, rtol=1e-9, atol=1e-12)


def test_the_trace_goes_on_where_float32_ends():
    x, y = (part[:8] for part in tasks.load("digits").train)
    network = initialize(fanin.get("ones"), (64, *[64] * 30, 10), seed=0)
    found = trace(network, x, y, "relu").operations[-1].after
    assert found.broken == 0
    assert found.largest > float(np.finfo(np.float32).max)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_trains(name):
    row = compare(["he_normal"], activation=name, depth=1, width=8, steps=2, seeds=2, rates=(0.01,)).rows[0]
    assert row.diverged == 0


# what the comparison shows


@pytest.fixture(scope="module")
def deep():
    """Thirty layers, the tutorial's lesson in small: four initializers, two rates."""
    return compare(
        ["he_normal", "glorot_normal", "constant(0.1)", "random_normal(stddev=1.0)"],
        depth=30,
        steps=200,
        seeds=3,
        rates=(0.00316, 0.01),
    )


def by_expression(comparison):
    return {row.expression: row for row in comparison.rows}


def test_he_beats_glorot_at_thirty_relu_layers(deep):
    rows = by_expression(deep)
    he, glorot = rows["he_normal"], rows["glorot_normal"]
    assert paired_difference(he.accuracies, glorot.accuracies).low > 0
    assert (he.outcome, glorot.outcome) == ("learned", "stuck")
    # Var W = 1 / n loses half the mean square per layer: log10(1 / 2) / 2 = -0.15 decades. The
    # log of the mean square has a variance of at most 5 / n per layer and seed, and a bias of
    # half of that downward.
    error = math.sqrt(5 / 64 / 29 / 3) / 2 / math.log(10)
    bias = 5 / 64 / 4 / math.log(10)
    for row, theory in ((he, 0.0), (glorot, math.log10(0.5) / 2)):
        for measured in (row.forward_drift, row.backward_drift):
            assert theory - bias - 5 * error < measured < theory + 5 * error
    assert he.findings == ()
    assert {finding.code for finding in glorot.findings} == {"forward-scale", "backward-scale"}


def test_equal_units_stay_equal_and_learn_nothing(deep):
    row = by_expression(deep)["constant(0.1)"]
    assert (row.effective_width, row.trained_width) == (1, 1)
    assert row.outcome == "stuck"
    assert row.breaks("symmetry")
    assert row.breaks("balance")
    assert row.positive == 1


def test_too_large_weights_diverge_at_every_rate(deep):
    row = by_expression(deep)["random_normal(stddev=1.0)"]
    assert row.outcome == "diverged"
    assert row.diverged == 1
    assert row.trained_width is None
    assert row.accuracies == (0, 0, 0)
    assert deep.rows[-1] is row


def test_the_verdict_names_winner_and_losers(deep):
    assert deep.verdict.startswith("With 30 hidden layers of 64 relu units, he_normal learns best")
    assert deep.verdict.endswith(
        "3 of 4 never learn, and all of these broke one of the three rules before the first step."
    )


def test_at_two_layers_all_look_alike():
    shallow = compare(["he_normal", "glorot_normal", "orthogonal"], depth=2, width=32, steps=200, seeds=5)
    assert [row.outcome for row in shallow.rows] == ["learned"] * 3
    assert "no difference is detectable" in shallow.verdict
    assert all(row.reached == 1 for row in shallow.rows)


def test_the_line_up_covers_the_tutorial_and_parses():
    networks = [fanin.get(expression) for expression in LINE_UP if expression != "lsuv"]
    assert len(networks) + 1 == len(set(LINE_UP)) == 19
    halves = compare(steps=1, depth=1, width=10, seeds=2, rates=(0.01,), task="halves")
    assert {row.expression for row in halves.rows} == {*LINE_UP, "pretrained"}
    small = compare(steps=1, depth=1, width=10, seeds=2, rates=(0.01,))
    assert {row.expression for row in small.rows} == set(LINE_UP)


def test_what_has_learned_one_half_of_the_digits_is_a_row_of_the_other():
    asked = ["pretrained", "he_normal"]
    found = compare(asked, task="halves", **SMALL)
    rows = by_expression(found)
    assert found.n_classes == 5
    assert rows["pretrained"].accuracy_curve != rows["he_normal"].accuracy_curve
    alone = compare(["he_normal"], task="halves", **SMALL).rows[0]
    assert alone.accuracy_curve == rows["he_normal"].accuracy_curve
    again = by_expression(compare(asked[::-1], task="halves", **SMALL))
    assert again["pretrained"].accuracy_curve == rows["pretrained"].accuracy_curve
    assert "pretrained is he_normal after 40 steps on the digits 0 to 4" in compare_html(found)
    assert "pretrained is" not in compare_html(dataclasses.replace(found, rows=(alone,)))


def test_a_pretrained_start_is_the_checkpoint_and_a_new_head():
    task = tasks.load("halves")
    sizes = (task.n_features, 8, 8, task.n_classes)
    ticks = []
    sweep = {"phi": activation_called("relu"), "rates": (0.01, 1e-6), "steps": 30, "batch": 16}
    started = pretrained(task.before, sizes, 2, on_chunk=lambda: ticks.append(1), **sweep)
    drawn = [initialize(fanin.get("he_normal"), sizes, seed) for seed in range(2)]
    history = train(drawn, task.before, **sweep)
    best = best_rate(history)
    for seed, network in enumerate(started):
        for at in range(2):
            assert np.array_equal(network.weights[at], history.networks.weights[at][best, seed])
            assert np.array_equal(network.biases[at], history.networks.biases[at][best, seed])
            assert network.biases[at].any()
        assert np.array_equal(network.weights[2], drawn[seed].weights[2])
        assert not network.biases[2].any()
    assert len(ticks) == len(evaluation_steps(30)) - 1
    assert {*np.unique(task.before.train[1])} == {*np.unique(task.train[1])} == {*range(5)}


def test_starts_are_calibrated_where_they_can_be():
    given = ["zeros", "glorot_normal", "lsuv"]
    found = compare(given, calibrate="weight_norm", **SMALL)
    assert {row.expression for row in found.rows} == {"zeros", "glorot_normal, weight_norm", "lsuv"}
    with pytest.raises(UnknownNameError, match="no method 'lsu'; did you mean lsuv"):
        compare(given, calibrate="lsu", **SMALL)
    deep = compare(["lsuv", "orthogonal"], **{**SMALL, "depth": 12})
    drifts = {row.expression: abs(row.forward_drift) for row in deep.rows}
    assert drifts["lsuv"] < 0.01 < drifts["orthogonal"]


def test_the_same_call_gives_the_same_facts():
    once, twice = (compare(["he_normal", "zeros"], **SMALL) for _ in range(2))
    first, second = (dataclasses.replace(found, seconds=0.0) for found in (once, twice))
    assert first.to_json() == second.to_json()


def test_the_company_does_not_change_a_row():
    alone = compare(["he_normal"], **SMALL).rows[0]
    among = by_expression(compare(["zeros", "orthogonal", "he_normal"], **SMALL))["he_normal"]
    assert alone.accuracy_curve == among.accuracy_curve
    assert alone.loss_curve == among.loss_curve


def test_zeros_learn_the_class_shares_and_no_more():
    row = compare(["zeros"], **SMALL).rows[0]
    assert row.outcome == "stuck"
    assert (row.effective_width, row.trained_width, row.std) == (1, 1, 0)
    assert row.loss_curve[0][0] == pytest.approx(math.log(10), rel=1e-4)
    assert math.isnan(row.forward_drift)


def test_progress_counts_to_the_end():
    seen = []
    compare(["zeros", "ones"], on_progress=lambda *tick: seen.append(tick), **SMALL)
    assert [done for done, _, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total, _ in seen} == {len(seen)}
    assert {expression for _, _, expression in seen} == {"zeros", "ones"}


def test_an_error_in_the_progress_callback_stops_the_training():
    seen = []

    def stop(done, total, expression):
        seen.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(["zeros", "ones", "he_normal"], on_progress=stop, **SMALL)
    assert seen == [1]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"inits": []}, ArgumentError, "`inits` is empty"),
        ({"inits": ["pretrained"]}, ArgumentError, "`inits` 'pretrained' needs a `task` with classes before"),
        ({"inits": ["zeros", "zeros"]}, ArgumentError, "`inits` names 'zeros' twice"),
        ({"inits": ["he_normla"]}, UnknownNameError, "he_normal"),
        ({"inits": ["he_normal("]}, ExpressionError, "he_normal"),
        ({"depth": 0}, ArgumentError, r"`depth` \(=0\) must be at least 1"),
        ({"seeds": 1}, ArgumentError, r"`seeds` \(=1\) must be at least 2"),
        ({"steps": -3}, ArgumentError, r"`steps` \(=-3\) must be at least 1"),
        ({"rates": [0.1, -1]}, ArgumentError, r"`rates` \(=\[0.1, -1.0\]\) must be positive"),
        ({"rates": []}, ArgumentError, "`rates`"),
        ({"threshold": 90}, ArgumentError, r"`threshold` \(=90\) must be above 0 and at most 1"),
        ({"activation": "rellu"}, UnknownNameError, "did you mean relu"),
        ({"task": "digit"}, UnknownNameError, "expected digits, halves, spirals or the path of a .csv"),
    ],
)
def test_bad_arguments_are_named_with_what_would_be_right(arguments, error, text):
    with pytest.raises(error, match=text):
        compare(**{"inits": ["zeros"], **SMALL, **arguments})


# choosing and measuring


def history(accuracy, losses=None, validation=None, validation_loss=None, at=None):
    """A History of the given test accuracies (rates, seeds, evaluations)."""
    accuracy = np.asarray(accuracy, np.float32)
    rates, seeds, points = accuracy.shape
    steps = points - 1
    return History(
        losses=np.ones((rates, seeds, steps), np.float32) if losses is None else losses,
        accuracy=accuracy,
        evaluated_at=tuple(range(points)) if at is None else at,
        validation_accuracy=accuracy[..., -1] if validation is None else np.asarray(validation),
        validation_loss=(np.ones((rates, seeds)) if validation_loss is None else np.asarray(validation_loss)),
        networks=Network((), ()),
    )


def test_the_rate_is_chosen_on_validation_not_on_test():
    test = np.zeros((3, 2, 2))
    test[2] = 1.0
    chosen = history(test, validation=[[0.5, 0.7], [0.9, 0.8], [0.1, 0.2]])
    assert best_rate(chosen) == 1


def test_ties_between_rates_go_to_the_lower_loss_then_the_lower_rate():
    test = np.zeros((3, 2, 2))
    assert best_rate(history(test, validation_loss=[[2, 2], [1, 1], [math.nan, 0]])) == 1
    assert best_rate(history(test)) == 0


def test_the_first_evaluation_at_the_threshold_counts():
    test = [[[0.1, 0.9, 0.5], [0.1, 0.2, 0.95], [0.1, 0.2, 0.3]]]
    found = first_reached(history(test, at=(0, 20, 40)), 0, 0.9)
    assert found.tolist() == [20, 40, math.inf]


def test_divergence_is_a_loss_that_leaves_the_numbers_or_rises_beyond_a_blind_guess():
    losses = np.full((1, 5, 4), 2.3, np.float32)
    losses[0, 1, 2] = math.inf  # once is enough
    losses[0, 2, 1:] = math.nan
    losses[0, 3, -1] = 2.3 + 2.2  # below a blind guess above the start
    losses[0, 4, -1] = 2.3 + 2.4
    found = has_diverged(history(np.zeros((1, 5, 5)), losses=losses), n_classes=10)
    assert found.tolist() == [[False, True, True, False, True]]


def test_a_finding_counts_when_more_than_half_of_the_seeds_share_it():
    x, y = (part[:30] for part in tasks.load("digits").train)

    def traced(*expressions):
        return [trace(starts(e, (64, 9, 9, 10), 1)[0], x, y, "relu") for e in expressions]

    tied, free = "constant(0.1)", "he_normal"
    assert "symmetry" in {finding.code for finding in common_findings(traced(tied, free, tied))}
    assert common_findings(traced(free, tied, free)) == ()
    assert common_findings(traced(tied, free)) == ()


def test_learning_is_more_than_chance_and_more_than_a_trace():
    # a tenth of the way from 0.1 to 1; three standard errors of 0.1 with 36 examples are 0.15
    assert learned_from(0.1, n_test=100_000) == pytest.approx(0.19)
    assert learned_from(0.1, n_test=36) == pytest.approx(0.25)


def test_the_loss_curve_averages_the_steps_between_evaluations():
    losses = np.arange(1.0, 7.0, dtype=np.float32).reshape(1, 1, 6)
    found = loss_curve(history(np.zeros((1, 1, 4)), losses=losses, at=(0, 2, 4, 6)), 0)
    assert found.tolist() == [[1.0, 1.5, 3.5, 5.5]]


def test_the_trained_width_ignores_rounding_only():
    weight = np.full((1, 1, 3, 4), 0.5)
    rounded = weight * (1 + 1e-6 * np.arange(4))
    apart = weight * (1 + 1e-2 * np.arange(4))
    bias, above = np.zeros((1, 1, 4)), np.ones((1, 1, 4, 2))
    head = np.zeros((1, 1, 2))
    assert trained_width(Network((rounded, above), (bias, head)), 0) == 1
    assert trained_width(Network((apart, above), (bias, head)), 0) == 4
    assert trained_width(Network((apart * math.nan, above), (bias, head)), 0) is None


def test_student_intervals_have_the_tables_width():
    # t(4, 0.975) = 2.776445, t(1, 0.975) = 12.7062: Student's table
    five = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert five.mean == 3
    assert five.half == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)
    assert t_interval([0.0, 2.0]).half == pytest.approx(12.7062, rel=1e-5)


def test_student_intervals_cover_the_mean_as_often_as_they_say():
    draws = np.random.default_rng(0).normal(size=(2000, 5))
    covered = np.mean([t_interval(row).has_zero for row in draws])
    assert abs(covered - 0.95) < 5 * math.sqrt(0.95 * 0.05 / 2000)


def test_pairing_removes_what_the_seeds_share():
    shared = np.array([0.1, 0.5, 0.9, 0.3])
    assert not paired_difference(shared + np.array([0.02, 0.03, 0.02, 0.03]), shared).has_zero
    assert t_interval(shared + 0.02).half > 0.5


def test_rank_puts_the_best_first_and_compares_all_pairs():
    row = compare(["he_normal"], **SMALL).rows[0]

    def made(name, outcome, *accuracies):
        return dataclasses.replace(
            row,
            expression=name,
            outcome=outcome,
            accuracies=accuracies,
            accuracy=t_interval(accuracies),
        )

    ranked = rank(
        [
            made("lost", "diverged", 0.0, 0.0, 0.0),
            made("good", "learned", 0.7, 0.8, 0.9),
            made("close", "learned", 0.8, 0.7, 0.85),
            made("flat", "stuck", 0.1, 0.1, 0.1),
        ]
    )
    assert [r.expression for r in ranked] == ["good", "close", "flat", "lost"]
    assert ranked[0].alike == ("close",)
    assert ranked[2].alike == ()
    assert ranked[0].difference.mean == 0
    assert ranked[2].difference.mean == pytest.approx(-0.7)


def test_the_default_rates_are_seven_half_decades():
    assert len(RATES) == 7
    np.testing.assert_allclose(np.diff(np.log10(RATES)), 0.5)
    assert (RATES[0], RATES[-1]) == (pytest.approx(1e-3), 1.0)


# tasks


@pytest.mark.parametrize("name", ["digits", "spirals"])
def test_tasks_are_split_in_equal_class_shares_and_scaled(name):
    task = tasks.load(name)
    parts = task.train, task.validation, task.test
    total = sum(len(y) for _, y in parts)
    for (x, y), share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert abs(len(y) - share * total) <= 1
        assert (x.dtype, y.dtype) == (np.float32, np.int32)
        counts = np.bincount(y, minlength=task.n_classes) / len(y)
        expected = np.bincount(np.concatenate([y for _, y in parts])) / total
        assert np.abs(counts - expected).max() < 2 / len(y)
    x = task.train[0]
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
    assert np.mean(x.astype(np.float64) ** 2) == pytest.approx(1, rel=1e-5)


def test_no_example_is_in_two_parts():
    task = tasks.load("spirals")
    rows = [tuple(row) for x, _ in (task.train, task.validation, task.test) for row in x.tolist()]
    assert len(set(rows)) == len(rows)


def test_spirals_are_learned():
    row = compare(["he_normal"], task="spirals", depth=2, width=32, steps=300, seeds=2).rows[0]
    assert row.accuracy.mean > 0.9


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def flowers(n=20):
    rng = np.random.default_rng(0)
    return [
        f"{rng.normal(kind):.3f},{rng.normal(-kind):.3f},{'abc'[kind]}" for kind in range(3) for _ in range(n)
    ]


def test_a_header_and_blank_lines_change_nothing(tmp_path):
    bare = tasks.load(write(tmp_path / "bare.csv", flowers()))
    header = ["\ufeffpetal,sepal,kind", "", *flowers(), ""]
    headed = tasks.load(write(tmp_path / "headed.csv", header))
    for part in ("train", "validation", "test"):
        for a, b in zip(getattr(bare, part), getattr(headed, part), strict=True):
            assert np.array_equal(a, b)
    assert (bare.n_features, bare.n_classes) == (2, 3)


def test_csv_columns_are_scaled_one_by_one_and_constants_stay_zero(tmp_path):
    lines = [f"7,{1000 * float(line.split(',')[0])},{line}" for line in flowers()]
    x = tasks.load(write(tmp_path / "scaled.csv", lines)).train[0]
    assert not x[:, 0].any()
    np.testing.assert_allclose(x[:, 1:].std(axis=0), 1, rtol=1e-5)


def test_a_csv_task_runs_to_the_end(tmp_path):
    path = write(tmp_path / "flowers.csv", flowers())
    found = compare(["he_normal"], task=path, **SMALL)
    assert found.task == str(path)
    assert found.n_classes == 3
    assert json.loads(found.to_json())["n_features"] == 2


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], r"bad\.csv: no data; expected one example per line, label last"),
        (["x,y,label"], r"bad\.csv: no data"),
        (["1", "2"], r"bad\.csv, line 1: 1 column; expected features and then a label"),
        ([*flowers(), "1,2"], r"bad\.csv, line 61: 2 columns; expected 3, as in line 1"),
        (
            ["x,y,label", *flowers(), "1,two,a"],
            r"bad\.csv, line 62, column 2: 'two'; expected a finite number",
        ),
        ([*flowers(), "nan,2,a"], r"bad\.csv, line 61, column 1: 'nan'; expected a finite"),
        ([*flowers(), "1,2,"], r"bad\.csv, line 61: no label in the last column"),
        (["1,2,a"] * 9, r"bad\.csv: every label is 'a'; expected at least 2 classes"),
        (
            [*flowers(), "1,2,rare"],
            r"bad\.csv, line 61: label 'rare' occurs 1 time; expected at least 5 examples",
        ),
        (["1;2;a", "3;4;b"], r"bad\.csv, line 1: 1 column; .* separated by commas"),
    ],
)
def test_a_bad_csv_is_one_error_with_file_line_and_remedy(tmp_path, lines, text):
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ArgumentError, match=text):
        compare(["zeros"], task=path, **SMALL)


def test_a_csv_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(ArgumentError, match=r"none\.csv: cannot be read \(No such file"):
        tasks.load(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ArgumentError, match=r"binary\.csv: not UTF-8 text"):
        tasks.load(tmp_path / "binary.csv")
