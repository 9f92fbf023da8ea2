"""The experiments of the chapter on Adam do what they say."""

import math
from functools import partial

import pytest
import torch

from minioptim import SGD, Adam
from walkthrough import adaptive, surfaces


def test_feed_moves_by_the_gradients_it_is_given():
    gradients = adaptive.noise(5, 3, seed=0)
    fed = adaptive.feed(partial(SGD, lr=0.5), gradients, start=1.0)
    assert fed.points.shape == (6, 3)
    assert torch.equal(fed.points[0], torch.ones(3, dtype=torch.float64))
    assert torch.allclose(fed.steps, -0.5 * gradients)


def test_feed_keeps_the_dtype_and_returns_the_state():
    fed = adaptive.feed(partial(Adam, lr=0.1), torch.ones(3, 2, dtype=torch.bfloat16))
    assert fed.points.dtype == torch.bfloat16
    assert fed.state["step"] == 3
    assert fed.state["exp_avg"].shape == (2,)
    assert adaptive.feed(partial(SGD, lr=1.0), [1.0, 2.0]).points.tolist() == [0.0, -1.0, -3.0]


@pytest.mark.parametrize("degrees", [0.0, 30.0, 45.0])
def test_the_tilted_bowl_is_a_turned_quadratic(degrees):
    straight, tilted = surfaces.Quadratic((1.0, 50.0)), adaptive.Tilted((1.0, 50.0), degrees)
    x = adaptive.noise(2, seed=1)
    turned = (tilted.turn @ x).requires_grad_()
    value = tilted.value(turned)
    assert torch.allclose(value, straight.value(x))
    assert torch.allclose(torch.autograd.grad(value, turned)[0], tilted.gradient(turned))
    curvatures = surfaces.eigenvalues(tilted, x)
    assert torch.allclose(curvatures, torch.tensor([1.0, 50.0], dtype=torch.float64))


def test_a_block_sees_what_it_is_supplied_with():
    points, left = adaptive.run_block("param = param - lr*grad\nt = t + 1", 2.0, 3, lr=0.5)
    assert points.tolist() == [2.0, 1.0, 0.5, 0.25]
    assert left["t"] == 3
    points, _ = adaptive.run_block("param = param - grad", 0.0, 2, gradient=lambda x, t: t + 1)
    assert points.tolist() == [0.0, -1.0, -3.0]


def test_the_second_block_does_not_run_as_printed():
    assert len(adaptive.SECOND_BLOCK.strip().splitlines()) == 7
    with pytest.raises(NameError, match="sigma"):
        adaptive.run_block(adaptive.SECOND_BLOCK, 1.0, 1)


def test_reddi_keeps_the_point_inside_and_lowers_the_rate():
    points = adaptive.reddi(partial(SGD, lr=0.1), 6)
    assert torch.allclose(points[1], torch.tensor(-0.3, dtype=torch.float64))
    assert torch.allclose(points[2] - points[1], torch.tensor(0.1 / math.sqrt(2)).double())
    assert adaptive.reddi(partial(SGD, lr=10.0), 30).abs().max() == 1


def test_the_problem_of_wilson_has_five_features_for_each_sample():
    data = adaptive.wilson(n=20, test=10)
    assert data.x.shape == (20, 103)
    assert torch.equal(data.x[:, 0], data.y)
    own = data.x[:, 3:].sum(1)
    assert torch.equal(own, torch.where(data.y > 0, 1.0, 5.0).double())
    assert data.test_x[:, 3:].abs().sum() == 0
    assert (data.x[:, 3:].sum(0) <= 1).all()  # no two samples share one


def test_rare_words_are_rare():
    lazy = adaptive.zipf(partial(SGD, lr=0.1), steps=50)
    assert lazy["frequent"] < lazy["rare"]


def test_decay_groups_part_matrices_from_vectors():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    decay, rest = adaptive.decay_groups(net.named_parameters(), 0.1)
    assert [name for name, _ in decay["params"]] == ["0.weight"]
    assert [name for name, _ in rest["params"]] == ["0.bias", "1.weight", "1.bias"]
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)


def test_pictures_of_state_say_what_they_show(capsys):
    p, q = torch.nn.Parameter(torch.zeros(4)), torch.nn.Parameter(torch.zeros(2))
    p.grad = torch.ones(4)
    optimizer = Adam([p, q])
    optimizer.step()
    adaptive.state_drawing(optimizer, {p: "p", q: "q"})
    assert capsys.readouterr().out.startswith("p  step exp_avg exp_avg_sq\nq  nothing\n")
    q.grad = torch.ones(2)
    optimizer.step()
    adaptive.memory({"Adam": optimizer})
    assert "times the parameters" in capsys.readouterr().out
