"""Local linear-Gaussian models, refitted to recent rows: the model of NAF's rollouts (Gu et al. 2016, arXiv:1603.00748, section 5.3).

Letters: C centres, N rows to fit, B rows to predict, H horizon, O observation, A action, I = O + A inputs, F = I + 1 features (inputs in
standard units, then 1), D = O, plus one where the reward is learned. Randomness comes from torch's global generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbkit.config import check_range
from mbkit.dynamics.network import encode_action
from mbkit.dynamics.propagation import differentiable_step, unroll
from mbkit.errors import UserError
from mbkit.fields import at_least, between
from mbkit.networks.normalizer import Normalizer
from mbkit.registry import dynamics
from mbkit.types import EnvSpec, Metrics, Prediction, Rollout, Step, TaskKnowledge, Transition

PRIOR_ROWS = 5.0  # rows that the prior of a centre's variance counts for


@dataclass(frozen=True)
class LocalLinearConfig:
    """Number and data of the local models, their priors, and the noise of model rollouts."""

    centres: int = at_least(32, 1)  # number of local models; 1: a single linear model. Paper: one per time step
    window: int = at_least(5000, 2)  # number of most recent rows that are fitted. Paper: the last 5 episodes
    ridge: float = at_least(1e-3, 1e-6)  # ridge penalty of the fit to all rows, in rows that pull it towards 0
    shrinkage: tuple[float, ...] = at_least((0.01, 0.1, 1.0, 10.0, 100.0), 1e-3)  # prior rows that pull each centre towards the fit to all
    # rows; the hold-out chooses among several
    iterations: int = at_least(10, 0, when="centres!=1")  # number of Lloyd iterations that place the centres
    noise: Literal["sample", "mean"] = "sample"  # outcome of model steps: a sample of the Gaussian, or its mean
    delta: bool = True  # predicted change of the observation, the ridge pulling towards "nothing changes"; false: the next observation
    holdout: float = between(0.1, 0.0, 0.9)  # hold-out fraction of the window, drawn at each fit; 0: errors are those of fitted rows
    reward: str = "auto"  # reward function: auto (the environment's where known, else learned), learned, or your own, pkg.mod:fn
    termination: str = "auto"  # termination function: auto (the environment's where known, else never), never, or your own, pkg.mod:fn


class LocalFit(NamedTuple):
    """Linear-Gaussian models of all centres, for inputs in standard units and targets in raw ones."""

    coef: Tensor  # [F, C, D], the intercept last
    var: Tensor  # [C, D]


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """The centre [C, O] nearest to each row x [B, O], int64 [B]; |x - c|^2 less |x|^2, which all centres share."""
    return torch.addmm(centres.square().sum(1), x, centres.T, alpha=-2).argmin(1)


def scattered(x: Tensor, centres: int) -> Tensor:
    """k-means++: rows of x [N, O] drawn one after another with probability proportional to the squared distance to those drawn, [C, O].

    A row is drawn as the largest ratio of distance to an exponential random number: unlike `multinomial`, this allows rows that coincide
    and does not synchronise with the device.
    """
    drawn = [x[torch.randint(len(x), (1,), device=x.device)[0]]]
    gap = (x - drawn[0]).square().sum(1)
    for _ in range(centres - 1):
        drawn.append(x[(gap / torch.empty_like(gap).exponential_()).argmax()])
        gap = gap.minimum((x - drawn[-1]).square().sum(1))
    return torch.stack(drawn)


def k_means(x: Tensor, centres: int, iterations: int) -> Tensor:
    """Lloyd's algorithm on rows x [N, O] -> [C, O]; a centre that no row is nearest to stays where it is."""
    centre = scattered(x, centres)
    for _ in range(iterations):
        member = F.one_hot(nearest(x, centre), centres).to(x.dtype)  # [N, C]
        rows = member.sum(0)[:, None]
        centre = torch.where(rows > 0, member.T @ x / rows.clamp(min=1), centre)
    return centre


def outputs(x: Tensor, coef: Tensor, centre: Tensor) -> Tensor:
    """Rows x [B, I] through the linear models coef [F, C, D] of their centres, int64 [B] -> [B, D].

    All models are run and one is selected: one large product is mostly faster than gathering a matrix for each row (CPU, up to 6 times).
    """
    every = torch.addmm(coef[-1].flatten(), x, coef[:-1].flatten(1)).view(len(x), *coef.shape[1:])
    return every.gather(1, centre.view(-1, 1, 1).expand(-1, 1, coef.shape[2]))[:, 0]


def solved(a: Tensor, b: Tensor) -> Tensor:
    """a^-1 b for symmetric positive definite a [..., F, F]."""
    return torch.cholesky_solve(b, torch.linalg.cholesky(a))


def local_fits(x: Tensor, y: Tensor, centre: Tensor, centres: int, ridge: float, shrinkage: Sequence[float]) -> list[LocalFit]:
    """Ridge regression of y [N, D] on (x [N, I], 1) in each centre, pulled towards that over all rows; one fit for each `shrinkage`.

    Over all rows, with S = X' X and R = ridge 1 but for the intercept: b = (S + R)^-1 X' y. A centre's prior are `shrinkage` rows, spread
    out as all rows are, that lie on b: b_c = b + (S_c + shrinkage P)^-1 X_c' (y_c - X_c b), P = (S + R) / N. Its own rows decide
    p_c = tr (S_c + shrinkage P)^-1 S_c of its F coefficients and leave n_c - p_c degrees of freedom. Without rows b_c is b.
    """
    features = x.shape[1] + 1
    x1 = F.pad(x, (0, 1), value=1.0)
    gram = x1.T @ x1
    prior = gram + torch.diag(F.pad(torch.full_like(x[0], ridge), (0, 1)))
    common = solved(prior, x1.T @ y)
    rest = y - x1 @ common
    member = F.one_hot(centre, centres).T.to(x.dtype)  # [C, N]
    moments = (member[:, None] * x1.T) @ torch.cat((x1, rest), 1)  # [C, F, F + D]; scattered sums would differ from run to run
    rows, every = member.sum(1, keepdim=True), solved(prior, gram).trace()  # n_c [C, 1], and p where nothing is shrunk
    variance = pooled(rest.square().sum(0), len(y) - every, y.var(0, correction=0))  # of the fit to all rows, [D]
    fits = []
    for strength in shrinkage:
        hat = solved(moments[..., :features] + strength / len(x) * prior, moments)
        coef = (common + hat[..., features:]).transpose(0, 1)
        decided = hat[..., :features].diagonal(0, 1, 2).sum(1, keepdim=True)  # p_c [C, 1]
        squares = member @ (y - outputs(x, coef, centre)).square()
        fits.append(LocalFit(coef, local_variance(squares, rows - decided, decided / every, variance)))
    return fits


def local_variance(squares: Tensor, freedom: Tensor, share: Tensor, common: Tensor) -> Tensor:
    """Residual variance of each centre, [C, D], from its sum of squares [C, D] over its degrees of freedom [C, 1].

    Its prior is a weighted mean: of the variance of all local fits together by the `share` [C, 1] of a centre's coefficients that its rows
    decide, and of `common` [D], the variance of the fit to all rows, by the rest.
    """
    together, share = pooled(squares.sum(0), freedom.sum(), common), share.clamp(0, 1)
    return pooled(squares, freedom, share * together + (1 - share) * common, PRIOR_ROWS)


def pooled(squares: Tensor, freedom: Tensor, prior: Tensor, weight: float = 1.0) -> Tensor:
    """Variance from a sum of squares over degrees of freedom and from `prior`, which counts as `weight` observations of it."""
    return (squares + weight * prior) / (freedom.clamp(min=0) + weight)


@dynamics.register("local_linear", LocalLinearConfig)
class LocalLinear(nn.Module):
    """Linear-Gaussian models around centres in observation space, refitted to recent rows.

    Each row follows the model of the nearest centre alone: its Gaussian is the one fitted there, and contacts are not averaged away.

    Args:
        spec: dimensions, device, and whether actions are discrete (they enter as one-hot vectors).
        cfg: see `LocalLinearConfig`.
        task: known reward, or none to learn it as one more linear target; known termination, or none: episodes never terminate.
            `preprocess` and `absolute` are not used.

    Raises:
        UserError: a setting that is out of range, or a termination that should be learned.
    """

    capturable = True  # a plan with it can be one CUDA graph
    differentiable = True  # `step` takes `grad`
    centres: Tensor
    coef: Tensor
    var: Tensor
    relative: Tensor

    def __init__(self, spec: EnvSpec, cfg: LocalLinearConfig, task: TaskKnowledge = TaskKnowledge()) -> None:
        super().__init__()
        for field in fields(cfg):
            check_range(field.metadata, getattr(cfg, field.name), f"dynamics.{field.name}")
        if not cfg.shrinkage:
            raise UserError("dynamics.shrinkage needs at least one number, got none")
        if cfg.holdout == 0 and len(cfg.shrinkage) > 1:
            raise UserError(
                f"dynamics.shrinkage must be one number where dynamics.holdout=0 leaves nothing to choose by, got {cfg.shrinkage}"
            )
        if cfg.termination == "learned":
            raise UserError("dynamics.termination of local_linear must be auto, never or pkg.mod:fn, got 'learned', which the ensemble can")
        self.spec, self.cfg, self.task, self.reward_part = spec, cfg, task, task.reward_part
        inputs, self.output_dim = spec.obs_dim + spec.action_dim, spec.obs_dim + (task.reward is None)
        self.inputs = Normalizer(inputs)
        # Paper: a model for each time step, N(F_t [x; u] + f_t, N_t), along the last rollouts; here: one for each centre in observation
        # space (rows of any episode, length and policy share models, and model rollouts may begin anywhere). Actions do not place centres:
        # the models are linear in them, as most mechanics are, and each dimension more spreads the centres thinner.
        self.register_buffer("centres", torch.zeros(cfg.centres, spec.obs_dim))  # in standard units
        self.register_buffer("coef", torch.zeros(inputs + 1, cfg.centres, self.output_dim))
        self.register_buffer("var", torch.zeros(cfg.centres, self.output_dim))
        self.register_buffer("relative", torch.full((spec.obs_dim,), float(cfg.delta)), persistent=False)  # 1 where changes are predicted
        self.to(spec.device)

    def encode(self, obs: Tensor, action: Tensor) -> Tensor:
        """Inputs before normalisation: obs [B, O], action [B, A] or int64 [B] -> [B, I]."""
        return torch.cat((obs, encode_action(self.spec, action)), -1)

    def _gaussian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Raw inputs [B, I] -> mean (of the change, where changes are predicted) and variance of the nearest centre's Gaussian, [B, D]."""
        z = self.inputs(x)
        centre = nearest(z[:, : self.spec.obs_dim], self.centres)
        return outputs(z, self.coef, centre), self.var[centre]

    def predict(self, obs: Tensor, action: Tensor) -> Prediction:
        """One Gaussian of the next observation (and reward, if learned): obs [B, O], action [B, A] -> [1, B, D], raw units.

        The variance is that of the residuals; it does not grow with the distance from the data.
        """
        mean, var = self._gaussian(self.encode(obs, action))
        mean = mean + F.pad(obs * self.relative, (0, self.output_dim - self.spec.obs_dim))
        return Prediction(mean[None], var[None])

    def init(self, obs: Tensor) -> Tensor:
        """The carry is the observation itself, obs [B, O]."""
        return obs

    def step(self, carry: Tensor, action: Tensor, predict: bool = False, grad: bool = False) -> Step:
        """One model step, action [B, A]; `predict`: with the Gaussian; `grad`: with gradients, as `Differentiable` says.

        The gradient is that of the row's linear model: the choice of the centre has none.
        """
        with torch.no_grad():
            prediction = self.predict(carry, action) if predict else None
        if grad:
            step = differentiable_step(self._draw, carry, action, self.relative, self.task)
            return step._replace(prediction=prediction)
        out = self.rollout(carry, action[:, None])
        return Step(out.obs[:, 0], out.obs[:, 0], out.reward[:, 0], out.terminated[:, 0], prediction)

    @torch.no_grad()
    def rollout(self, carry: Tensor, actions: Tensor) -> Rollout:
        """H model steps from obs [B, O] under actions [B, H, A]; rows go on after they terminated."""
        out = unroll(self._draw, carry, actions.transpose(0, 1), self.relative, self.task)
        return Rollout(*(column.transpose(0, 1) for column in out))

    def _draw(self, obs: Tensor, action: Tensor) -> tuple[Tensor, None]:
        """A sample [B, D] of each row's outcome, or its mean; termination is not learned."""
        mean, var = self._gaussian(self.encode(obs, action))
        return mean if self.cfg.noise == "mean" else torch.addcmul(mean, var.sqrt(), torch.randn_like(mean)), None

    @torch.no_grad()
    def fit(self, data: Transition) -> Metrics:
        """Place the centres and fit the models anew to the last `window` of the rows, oldest first; an earlier fit has no influence.

        Returns the mean squared error on fitted rows (`model/loss`) and on rows held out, in the units of the targets, and the root of
        the latter in standard deviations of each target (`model/holdout_error`).

        Raises:
            UserError: fewer than two rows, values that are not finite, or equations without a solution; the model is then as it was before.
        """
        x, y = self._rows(data)
        n, cfg, o = len(x), self.cfg, self.spec.obs_dim
        count = min(max(round(cfg.holdout * n), int(cfg.holdout > 0)), n - 1)
        order = torch.randperm(n, device=x.device)
        holdout, train = order[:count] if count else order, order[count:]
        inputs = Normalizer(x.shape[1]).to(x.device)  # float32, as predictions will use it
        inputs.fit(x[train])
        z = inputs(x)
        centres = k_means(z[train, :o], cfg.centres, cfg.iterations)
        centre = nearest(z[:, :o], centres)
        try:
            fits = local_fits(z[train], y[train], centre[train], cfg.centres, cfg.ridge, cfg.shrinkage)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            both = f"dynamics.ridge={cfg.ridge} and dynamics.shrinkage={cfg.shrinkage}"
            raise UserError(f"local_linear: {both} are too small for these rows, expected equations with one solution: {error}") from error
        squares = torch.stack([(y - outputs(z, fit.coef, centre)).square() for fit in fits])  # [K, N, D]
        spread = y.var(0, correction=0)
        relative = (squares[:, holdout].mean(1) / torch.where(spread < 1e-24, 1.0, spread)).mean(1)  # [K]
        best = int(relative.argmin())
        self.inputs.load_state_dict(inputs.state_dict())
        for mine, new in ((self.centres, centres), (self.coef, fits[best].coef), (self.var, fits[best].var)):
            mine.copy_(new)
        errors = {"model/holdout_mse": squares[best, holdout].mean().float(), "model/holdout_error": relative[best].sqrt().float()}
        return {"model/loss": squares[best, train].mean().float(), **errors}

    def _rows(self, data: Transition) -> tuple[Tensor, Tensor]:
        """Raw inputs [N, I] and raw targets [N, D] of the window, in float64."""
        recent = Transition(*(column[-self.cfg.window :] for column in data[:5]))
        if len(recent.obs) < 2:
            raise UserError(f"fitting the dynamics needs at least 2 transitions, got {len(recent.obs)}")
        x, y = self.encode(recent.obs, recent.action).double(), recent.next_obs.double() - recent.obs.double() * self.relative
        if self.task.reward is None:
            reward = self.task.reward_to_learn(recent.obs, recent.action, recent.next_obs, recent.reward)
            y = torch.cat((y, reward.double()[:, None]), -1)
        for what, value in (("inputs (observations and actions)", x), ("targets (next observations and rewards)", y)):
            finite = value.isfinite().all(1)
            if not bool(finite.all()):
                row = int((~finite).nonzero()[0])
                raise UserError(f"the {what} of the dynamics must be finite, got {value[row].tolist()} in row {row}")
        return x, y
