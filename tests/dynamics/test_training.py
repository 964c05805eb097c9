"""Fitting: the loss, its gradient, bootstrap, early stopping, restore, warm start, and recovery of a known system."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from systems import NOISE, SPEC, A, B, linear_gaussian

from mbkit.dynamics import training
from mbkit.dynamics.descent import Descent, gaussian_gradient, optimizer
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.dynamics.loss import TrainingRows, gaussian_loss, loss
from mbkit.dynamics.network import EnsembleNetwork, soft_bounded_logvar
from mbkit.dynamics.training import Best, draw_bootstrap, hold_out, padded, relative_errors, rows, shuffled
from mbkit.errors import UserError
from mbkit.networks.mlp import EnsembleMLP
from mbkit.types import TaskKnowledge, Transition

SMALL = EnsembleConfig(members=3, elites=2, hidden=(16, 16), max_epochs=3, batch=64)


def test_gaussian_loss_is_the_likelihood_up_to_its_constants():
    mean, logvar, y = torch.randn(3, 3, 5, 2).unbind(0)
    nll = -torch.distributions.Normal(mean, (0.5 * logvar).exp()).log_prob(y)
    expected = (2 * nll - torch.log(torch.tensor(2 * torch.pi))).mean((1, 2)).sum()
    torch.testing.assert_close(gaussian_loss(mean, logvar, y), expected)


@pytest.mark.parametrize("termination", ["never", "learned"])
@pytest.mark.parametrize("probabilistic", [True, False])
def test_rows_without_a_true_successor_are_left_out_of_the_likelihood_and_stay_labels_of_terminations(probabilistic, termination):
    """The loss is that of the other rows, but for the terminations, which are learned from all of them."""
    torch.manual_seed(0)
    network = EnsembleNetwork(SPEC, replace(SMALL, probabilistic=probabilistic, termination=termination))
    known = torch.tensor([[1.0, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]])[..., None]
    batch = TrainingRows(torch.randn(3, 6, 5), torch.randn(3, 6, 4), torch.rand(3, 6).round(), known)
    expected = sum(loss_of_member(network, batch, member) for member in range(3))
    if probabilistic:
        low, high = network.logvar_bounds
        expected = expected + 0.01 * (high.sum() - low.sum())
    if termination == "learned":
        logit = network.split(network.net(batch.x))[2]
        expected = expected + torch.nn.functional.binary_cross_entropy_with_logits(logit, batch.ended) * 3
    torch.testing.assert_close(loss(network, batch), expected)
    poisoned = batch._replace(y=torch.where(known > 0, batch.y, 1e3))
    assert loss(network, poisoned) == loss(network, batch)


def loss_of_member(network, batch, member):
    """The loss of one member on its known rows alone, without the bounds' penalty."""
    rows = batch.known[member, :, 0] > 0
    mean, raw, _ = network.split(network.net(batch.x))
    mean, y = mean[member, rows][None], batch.y[member, rows][None]
    if raw is None:
        return (mean - y).square().mean()
    return gaussian_loss(mean, soft_bounded_logvar(raw, *network.logvar_bounds)[member, rows][None], y)


def test_a_batch_without_a_known_row_has_no_likelihood():
    assert gaussian_loss(*torch.randn(3, 2, 5, 3), torch.zeros(2, 5, 1)) == 0


@pytest.mark.parametrize("termination", ["never", "learned"])
def test_fit_leaves_out_rows_without_a_true_successor(termination):
    """Whatever stands in the place of their successors; where no termination is learned it is the fit of the other rows."""
    data, known = linear_gaussian(120), torch.arange(120) % 5 != 0
    data = data._replace(discount=torch.where(known, 1.0, 0.0))  # those that end episodes have none
    ways = []
    for stand_in in (0.0, 5.0):
        next_obs, reward = torch.where(known[:, None], data.next_obs, stand_in), torch.where(known, data.reward, stand_in)
        ways.append((data._replace(next_obs=next_obs, reward=reward), known))
    if termination == "never":
        ways.append((Transition(*(column[known] for column in data[:5])), None))
    models = [small(termination) for _ in ways]
    metrics = []
    for model, way in zip(models, ways, strict=True):
        torch.manual_seed(1)
        metrics.append(model.fit(*way))
    first = models[0].network.state_dict()
    for model, figures in zip(models[1:], metrics[1:], strict=True):
        assert all(torch.equal(value, first[name]) for name, value in model.network.state_dict().items())
        assert figures == metrics[0]


def small(termination):
    torch.manual_seed(0)
    return Ensemble(SPEC, replace(SMALL, termination=termination))


def test_terminations_are_learned_from_rows_without_a_true_successor():
    """All episodes end where x_0 > 1, and no such row has a successor: the logits rise there all the same."""
    torch.manual_seed(0)
    data = linear_gaussian(300)
    ends = data.obs[:, 0] > 1
    data = data._replace(discount=(~ends).float(), next_obs=torch.where(ends[:, None], 0.0, data.next_obs))
    model = Ensemble(SPEC, replace(SMALL, termination="learned", max_epochs=25, lr=1e-2))
    model.fit(data, ~ends)
    with torch.no_grad():
        logit = model.network.targets_and_termination(data.obs, data.action)[1].mean(0)
    assert float(((logit > 0) == ends).float().mean()) > 0.95
    torch.testing.assert_close(
        model.network.targets.mean, torch.cat((data.next_obs - data.obs, data.reward[:, None]), 1)[~ends].mean(0), atol=0.1, rtol=0
    )


@pytest.mark.parametrize(
    ("termination", "sentence"), [("learned", "2 transitions with a true successor, got 1"), ("never", "2 transitions, got 1")]
)
def test_fit_needs_two_rows_with_a_true_successor(termination, sentence):
    with pytest.raises(UserError, match=f"fitting the dynamics needs at least {sentence}"):
        small(termination).fit(linear_gaussian(9), torch.arange(9) == 4)


def test_loss_gradient_by_finite_differences():
    torch.manual_seed(0)
    model = EnsembleNetwork(SPEC, replace(SMALL, hidden=(4,), termination="learned")).double()
    batch = TrainingRows(torch.randn(3, 6, 5).double(), torch.randn(3, 6, 4).double(), torch.rand(3, 6).round().double())
    loss(model, batch).backward()
    for p in (model.net.weight[0], model.net.bias[1], model.logvar_bounds):
        where = torch.randn_like(p)
        with torch.no_grad():
            ends = [loss(model, batch) for step in (1e-5, -2e-5) if p.add_(step * where) is not None]
            p.add_(1e-5 * where)
        torch.testing.assert_close((ends[0] - ends[1]) / 2e-5, (p.grad * where).sum(), rtol=1e-5, atol=1e-7)


BARE, ENDS = {"probabilistic": False}, {"termination": "learned"}
CASES = [{}, {"learn_bounds": False}, BARE, ENDS, BARE | ENDS]


def random_batch(members=3, rows=6, known=False, dtype=torch.float32):
    """Rows of members for `SPEC`; of each member half are `known`, and none of the last one's."""
    mask = torch.rand(members, rows, 1, dtype=dtype).round() if known else None
    if mask is not None:
        mask[-1] = 0
    x, y = torch.randn(members, rows, 5, dtype=dtype), torch.randn(members, rows, 4, dtype=dtype)
    return TrainingRows(x, y, torch.rand(members, rows, dtype=dtype).round(), mask)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_written_out_gradient_is_autograds(case, known):
    torch.manual_seed(0)
    network = EnsembleNetwork(SPEC, replace(SMALL, **case)).double()
    for p in network.net.parameters():
        p.data = 2 * torch.randn_like(p)  # outputs near both bounds
    batch = random_batch(known=known, dtype=torch.float64)
    descent = Descent(network, optimizer(network))
    params = [p for group in descent.adam.param_groups for p in group["params"]]
    value, grads = descent.gradient(batch)
    expected = loss(network, batch)
    torch.testing.assert_close(value, expected)
    for mine, theirs in zip(grads, torch.autograd.grad(expected, params), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("raw", [-300.0, -90.0, -10.0, 0.0, 10.0, 90.0, 300.0])
def test_the_written_out_gradient_is_finite_and_exact_far_beyond_the_bounds(raw):
    bounds = torch.tensor([[-10.0], [0.5]])
    mean, y, at = torch.zeros(1, 1, 1), torch.ones(1, 1, 1), torch.full((1, 1, 1), raw, requires_grad=True)
    _, _, _, _, by_raw = gaussian_gradient(mean, at.detach(), y, bounds, 1.0)
    exact = at.detach().double().requires_grad_()
    logvar = soft_bounded_logvar(exact, *bounds.double())
    (expected,) = torch.autograd.grad(gaussian_loss(mean.double(), logvar, y.double()), exact)
    torch.testing.assert_close(by_raw.double(), expected, rtol=1e-5, atol=1e-30)


def test_descent_takes_adams_steps_on_the_loss():
    """Five steps equal those of torch's Adam on autograd's gradients."""
    torch.manual_seed(0)
    network = EnsembleNetwork(SPEC, replace(SMALL, weight_decay=(0.1, 0.2, 0.3)))
    twin = deepcopy(network)
    groups = [{"params": [w], "weight_decay": d} for w, d in zip(twin.net.weight, (0.1, 0.2, 0.3), strict=True)]
    adam = torch.optim.Adam([*groups, {"params": [*twin.net.bias, twin.logvar_bounds]}], lr=SMALL.lr)
    batches = [random_batch() for _ in range(5)]
    losses = Descent(network, optimizer(network)).run(TrainingRows(*(torch.stack(c) for c in list(zip(*batches, strict=True))[:3])))
    for batch, value in zip(batches, losses, strict=True):
        expected = loss(twin, batch)
        adam.zero_grad()
        expected.backward()
        adam.step()
        torch.testing.assert_close(value, expected)
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-6, rtol=1e-4)


def test_optimizer_weight_decay_is_the_gradient_of_half_the_squared_norm():
    """One Adam step with our groups equals one on the loss with 0.5 wd ||W||^2 written out, biases spared."""
    torch.manual_seed(0)
    network = EnsembleNetwork(SPEC, replace(SMALL, weight_decay=(0.1, 0.2, 0.3)))
    twin, adam = deepcopy(network), optimizer(network)
    plain = torch.optim.Adam(twin.parameters(), lr=network.cfg.lr)
    batch = TrainingRows(torch.randn(3, 6, 5), torch.randn(3, 6, 4), torch.zeros(3, 6))
    decay = sum(0.5 * wd * w.square().sum() for wd, w in zip((0.1, 0.2, 0.3), twin.net.weight, strict=True))
    (loss(twin, batch) + decay).backward()
    plain.step()
    loss(network, batch).backward()
    adam.step()
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


def test_draw_bootstrap_draws_with_replacement():
    torch.manual_seed(0)
    index = draw_bootstrap(3, 2000, True, torch.device("cpu"))
    for row in index:
        assert 0.6 < row.unique().numel() / 2000 < 0.66  # 1 - 1/e
    assert torch.equal(draw_bootstrap(2, 5, False, torch.device("cpu")), torch.arange(5).expand(2, 5))


@pytest.mark.parametrize(("n", "batch"), [(64, 16), (65, 16), (10, 16), (7, 1)])
def test_shuffled_epoch_meets_every_row_in_batches_of_one_size(n, batch):
    index = torch.stack([torch.arange(n), torch.arange(n) + 100])
    batches = shuffled(index, batch)
    assert batches.shape[2] <= batch
    assert len(batches) == -(-n // batch)
    for e in range(2):
        assert set(batches[:, e].flatten().tolist()) == set(index[e].tolist())
    assert batches.numel() // 2 - n < len(batches)


def test_fit_of_one_member_without_bootstrap_is_plain_training_of_a_plain_network():
    data = linear_gaussian(128)
    cfg = replace(
        SMALL, members=1, elites=1, bootstrap=False, holdout=0.0, max_epochs=2, weight_decay=(0.0,), learn_bounds=False, scale_targets=False
    )
    torch.manual_seed(0)
    model = Ensemble(SPEC, cfg)
    net = model.network.net
    layers = [
        (w[0].detach().clone().requires_grad_(), b[0].detach().clone().requires_grad_()) for w, b in zip(net.weight, net.bias, strict=True)
    ]
    torch.manual_seed(3)
    model.fit(data)
    torch.manual_seed(3)
    order = torch.randperm(128)
    raw = rows(model.network, data)
    x, y = raw.x[order], raw.y[order]
    x = (x - x.mean(0)) / x.std(0)
    adam = torch.optim.Adam([p for layer in layers for p in layer], lr=cfg.lr)
    for _ in range(2):
        for where in torch.randperm(128).split(64):
            h = x[where]
            for n, (w, b) in enumerate(layers):
                h = h @ w + b
                h = torch.nn.functional.silu(h) if n < 2 else h
            logvar = soft_bounded_logvar(h[:, 4:], torch.tensor(-10.0), torch.tensor(0.5))
            adam.zero_grad()
            ((h[:, :4] - y[where]).square() * (-logvar).exp() + logvar).mean().backward()
            adam.step()
    for (w, b), ours, bias in zip(layers, net.weight, net.bias, strict=True):
        torch.testing.assert_close(ours[0], w, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(bias[0], b, atol=1e-4, rtol=1e-4)


def test_best_gives_each_member_its_own_best_weights_back():
    net = EnsembleMLP(2, (1, 1))
    best = Best(net, 0.01)
    history = torch.tensor([[1.0, 1.0], [0.5, 2.0], [0.8, 0.4], [0.499, 0.9]])  # the last gain of member 0 is below 1 %
    improved = []
    for epoch, error in enumerate(history):
        with torch.no_grad():
            net.weight[0].fill_(float(epoch))
        improved.append(bool(best.update(error)))
    assert improved == [True, True, True, False]
    best.restore()
    assert net.weight[0].flatten().tolist() == [3.0, 2.0]
    torch.testing.assert_close(best.error, torch.tensor([0.499, 0.4]))


def test_best_never_stores_a_nan_error():
    best = Best(EnsembleMLP(2, (1, 1)), 0.01)
    assert not best.update(torch.tensor([torch.nan, torch.nan]))
    assert best.error.isinf().all()


@pytest.mark.gpu
@pytest.mark.parametrize("case", [*CASES, {"holdout": 0.0}, {"scale_targets": False, "weight_decay": (0.0,)}], ids=str)
def test_fits_captured_equal_eager_ones(case):
    """Two fits to different numbers of rows: the graphs of the first serve the second."""
    ways = []
    for captured in (False, True):
        torch.manual_seed(0)
        spec = SPEC._replace(device=torch.device("cuda"))
        model = Ensemble(spec, replace(SMALL, batch=16, **case))
        trainer = model.trainer
        if not captured:
            trainer.descent.graph = trainer.graph = None
        torch.manual_seed(1)
        metrics = [model.fit(Transition(*(x.to("cuda") for x in linear_gaussian(rows)[:5]))) for rows in (211, 300)]
        ways.append([*model.network.state_dict().values(), *(x for m in metrics for x in m.values())])
    for eager, graph in zip(*ways, strict=True):
        torch.testing.assert_close(eager, graph, atol=1e-6, rtol=1e-5)


@pytest.mark.gpu
def test_an_epoch_on_a_gpu_synchronises_once():
    model = Ensemble(SPEC._replace(device=torch.device("cuda")), replace(SMALL, batch=16))
    data = Transition(*(x.to("cuda") for x in linear_gaussian(200)[:5]))
    model.fit(data)
    trainer, train = model.trainer, hold_out(model.network, rows(model.network, data))[0]
    index = draw_bootstrap(3, len(train.x), True, torch.device("cuda"))
    trainer.epoch(train, index)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.judge(trainer.epoch(train, index), padded(train))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_fit_stops_after_patience(monkeypatch):
    monkeypatch.setattr(training, "holdout_error", lambda network, holdout: torch.ones(3))
    model = Ensemble(SPEC, replace(SMALL, max_epochs=None, patience=4))
    assert model.fit(linear_gaussian(100))["model/epochs"] == 5


def test_choose_elites_takes_the_members_of_least_holdout_error():
    torch.manual_seed(0)
    model = Ensemble(SPEC, replace(SMALL, lr=1e-12, members=5))
    with torch.no_grad():
        for p in model.network.net.parameters():
            p.zero_()
        model.network.net.bias[-1][:, 0, :4] = torch.tensor([3.0, 0.0, 2.0, 1.0, 0.1])[:, None]
    metrics = model.fit(linear_gaussian(200))
    assert model.network.elites.tolist() == [1, 4]
    errors = torch.stack([metrics[f"model/holdout_mse/{e}"] for e in range(5)])
    assert errors.argsort().tolist() == [1, 4, 3, 2, 0]
    assert metrics["model/holdout_mse"] == errors[[1, 4]].mean()


def test_fit_goes_on_from_weights_and_moments():
    torch.manual_seed(0)
    model, data = Ensemble(SPEC, replace(SMALL, max_epochs=8)), linear_gaussian(500)
    first = model.fit(data)
    count = next(iter(model.optimizer.state.values()))["step"].item()
    second = model.fit(data)
    assert second["model/loss"] < first["model/loss"]
    assert next(iter(model.optimizer.state.values()))["step"].item() == 2 * count


def test_fit_with_the_same_seed_gives_the_same_model():
    def run():
        torch.manual_seed(5)
        model = Ensemble(SPEC, SMALL)
        model.fit(linear_gaussian(100))
        return model.network.net.weight[0]

    assert torch.equal(run(), run())


def same_tensors(state: dict, other: dict) -> bool:
    return all(torch.equal(value, other[name]) for name, value in state.items())


def test_fit_that_diverges_leaves_the_model_as_it_was():
    torch.manual_seed(0)
    model, data = Ensemble(SPEC, SMALL), linear_gaussian(200)
    model.fit(data)
    before, moments = deepcopy(model.network.state_dict()), deepcopy(model.optimizer.state_dict()["state"])
    for group in model.optimizer.param_groups:
        group["lr"] = 1e30
    with pytest.raises(UserError, match="diverged: the loss is"):
        model.fit(data)
    assert same_tensors(before, model.network.state_dict())
    assert all(same_tensors(slots, model.optimizer.state_dict()["state"][p]) for p, slots in moments.items())
    assert model.step(data.obs, data.action).obs.isfinite().all()


def test_fit_that_diverges_at_first_leaves_no_trace():
    model = Ensemble(SPEC, replace(SMALL, lr=1e30))
    before = deepcopy(model.network.state_dict())
    with pytest.raises(UserError, match="diverged"):
        model.fit(linear_gaussian(200))
    slots = [value for slot in model.optimizer.state.values() for value in slot.values()]
    assert not any(value.any() for value in slots)  # as Adam begins; the tensors stay, since a captured graph may hold them
    assert same_tensors(before, model.network.state_dict())


@pytest.mark.parametrize(("field", "named"), [("obs", "inputs"), ("next_obs", "targets"), ("reward", "targets")])
def test_fit_refuses_nan_in_the_data(field, named):
    data = linear_gaussian(20)
    getattr(data, field)[3] = torch.nan
    with pytest.raises(UserError, match=f"{named}.*in row 3"):
        Ensemble(SPEC, SMALL).fit(data)


def test_fit_refuses_a_single_row():
    with pytest.raises(UserError, match="at least 2 transitions, got 1"):
        Ensemble(SPEC, SMALL).fit(linear_gaussian(1))
    Ensemble(SPEC, SMALL).fit(linear_gaussian(2))


@pytest.mark.parametrize("scaled", [False, True])
def test_fit_recovers_mean_and_noise_of_a_linear_gaussian_system(scaled):
    torch.manual_seed(0)
    cfg = replace(SMALL, members=2, hidden=(32, 32), max_epochs=60, patience=10, scale_targets=scaled)
    model = Ensemble(SPEC, cfg, TaskKnowledge(lambda obs, action, next_obs: next_obs[:, 0]))
    model.fit(linear_gaussian(5000))
    test = linear_gaussian(2000)
    p = model.predict(test.obs, test.action)
    error = (p.mean.mean(0) - (test.obs @ A + test.action @ B)).square().mean(0).sqrt()
    assert (error < 0.35 * NOISE).all(), error
    torch.testing.assert_close(p.var.flatten(0, 1).median(0).values.sqrt().detach(), NOISE, rtol=0.2, atol=0)


def test_fit_learns_termination_which_rollouts_draw():
    torch.manual_seed(0)
    cfg = replace(SMALL, max_epochs=30, lr=3e-3, termination="learned", propagation="expectation")
    model = Ensemble(SPEC, cfg)
    model.fit(linear_gaussian(3000))
    test = linear_gaussian(2000)
    ended = model.step(test.obs, test.action).terminated
    assert ((test.discount == 0) == ended).float().mean() > 0.95
    model.cfg = replace(cfg, propagation="ts_inf")
    drawn = torch.stack([model.step(test.obs, test.action).terminated.float().mean() for _ in range(5)]).mean()
    torch.testing.assert_close(drawn, (test.discount == 0).float().mean(), atol=0.02, rtol=0)


def test_hold_out_is_capped():
    network = EnsembleNetwork(SPEC, replace(SMALL, holdout_max=10))
    train, holdout = hold_out(network, rows(network, linear_gaussian(200)))
    assert (len(train.x), len(holdout.x)) == (190, 10)


def test_fit_returns_scalars_among_them_every_members_error():
    metrics = Ensemble(SPEC, replace(SMALL, holdout_max=10)).fit(linear_gaussian(100))
    members = {f"model/holdout_{kind}/{e}" for e in range(3) for kind in ("mse", "error")}
    assert {"model/loss", "model/holdout_mse", "model/holdout_error", "model/holdout_nll", "model/epochs"} | members == set(metrics)
    assert all(v.ndim == 0 and not v.requires_grad for v in metrics.values())


@pytest.mark.parametrize("units", [1.0, 1e-4, 1e4])
@pytest.mark.parametrize("scaled", [True, False])
def test_relative_errors_are_in_standard_deviations_whatever_the_units(units, scaled):
    data = linear_gaussian(400)
    data = data._replace(next_obs=data.obs + units * (data.next_obs - data.obs))
    network = EnsembleNetwork(SPEC, replace(SMALL, scale_targets=scaled), TaskKnowledge(reward=lambda obs, action, next_obs: obs[:, 0]))
    raw, floor = rows(network, data), torch.full((SPEC.obs_dim,), 1e-12, dtype=torch.float64)
    train, holdout = hold_out(network, raw, floor)
    with torch.no_grad():
        for p in network.net.parameters():
            p.zero_()
        metrics = relative_errors(network, network.split(network.net(holdout.x))[0], train, holdout, floor)
    mean = network.targets.mean if scaled else torch.zeros(SPEC.obs_dim)
    raw_rows = network.targets.inverse(holdout.y) if scaled else holdout.y
    by_hand = ((raw_rows - mean) / raw.y.std(0)).square().mean().sqrt()
    torch.testing.assert_close(metrics["model/holdout_error"], by_hand, rtol=0.1, atol=0)  # `raw` holds the held-out rows too
    torch.testing.assert_close(metrics["model/holdout_error/1"], metrics["model/holdout_error"])  # all members alike


def test_relative_error_of_a_constant_dimension_is_finite():
    data = linear_gaussian(100)
    data = data._replace(next_obs=data.obs.clone())
    metrics = Ensemble(SPEC, replace(SMALL, scale_targets=False)).fit(data)
    assert all(value.isfinite() for value in metrics.values())
