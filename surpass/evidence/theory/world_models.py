"""Evidence for world models that are read out of values."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from scipy.stats import spearmanr
from torch import Tensor

from surpass.critics.grid_values import GoalGrid, Grid, goal_grid
from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.theory.world_models import Wanted, p_learning, p_learning_net
from surpass.objectives.inversion import Beliefs, least_norm, nearest_next, on_simplex
from surpass.tasks.control import DiscreteMountainCar
from surpass.tasks.tabular import TabularMDP, draw
from surpass.tasks.worlds import four_rooms
from surpass.training.run import train

GAMMA = 0.95
KINDS = ("plain", "windy", "teleport")
MARKS = [30, 60, 125, 250, 500, 1000, 2000, 4000]


def exact(world: TabularMDP, reward: Tensor) -> Beliefs:
    """The optimal values of goals that pay everywhere a little, and never end."""
    q = [TabularMDP(world.P, world.P @ r, world.d0, GAMMA).solve().q for r in reward]
    return Beliefs(torch.stack(q, -1), reward, GAMMA)


def near(world: TabularMDP) -> Tensor:
    """Where one step may lead: here, or next door."""
    eye = torch.eye(world.n_states, dtype=torch.bool)
    return (four_rooms("windy").P.sum(1) > 0) | eye


def off(found: Tensor, world: TabularMDP) -> float:
    """The mean squared error of a kernel."""
    return float((found - world.P).square().mean())


def unseen(found: Tensor, world: TabularMDP, g: torch.Generator, goals: int = 2) -> float:
    """What plans in a found model are worth in the world, over the best there is: goals with a trap
    that ends the episode, mean over drawn goals."""
    shares = []
    for goal, trap in torch.stack([torch.randperm(world.n_states, generator=g)[:2]
                                   for _ in range(goals)]):  # fmt: skip
        ends = torch.zeros(world.n_states, dtype=torch.bool)
        pays = ends.double()
        ends[goal], ends[trap], pays[goal] = True, True, 1.0
        plan = p_learning().solve(Wanted(found, pays, GAMMA, ends))
        truth = Wanted(world.P, pays, GAMMA, ends).mdp
        shares.append(float(truth.evaluate(plan.pi).value / truth.solve().value))
    return sum(shares) / goals


class Learning(NamedTuple):
    """Tables of an agent on the way, [K, S, A, G]."""

    q: Tensor
    reward: Tensor
    done: Tensor


def learned(world: TabularMDP, marks: list[int], g: torch.Generator, walkers: int = 64) -> Learning:
    """Q-learning toward every cell, by walkers that act evenly: each step teaches all goals
    (hindsight); the step size is the number of visits to the power -0.6."""
    S, kept = world.n_states, []
    reward, done = torch.eye(S, dtype=torch.float64), torch.eye(S, dtype=torch.bool)
    q, count = torch.zeros(S, 4, S, dtype=torch.float64), torch.zeros(S, 4)
    s = draw(world.d0.expand(walkers, -1), g)
    for step in range(1, max(marks) + 1):
        a = torch.randint(4, (walkers,), generator=g)
        after = draw(world.P[s, a], g)
        count.index_put_((s, a), torch.ones(walkers), accumulate=True)
        future = torch.where(done[:, after].T, 0.0, q[after].amax(1))
        rate = count[s, a].double().pow(-0.6)[:, None]
        q[s, a] = q[s, a] + rate * (reward[:, after].T + GAMMA * future - q[s, a])
        s = after
        if step in marks:
            kept.append(q.clone())
    return Learning(torch.stack(kept), reward, done)


def toward_cells(world: TabularMDP) -> Tensor:
    """The optimal values of reaching each cell, [S, A, G], by sweeps."""
    S = world.n_states
    eye = torch.eye(S, dtype=torch.float64)
    q = torch.zeros(S, 4, S, dtype=torch.float64)
    for _ in range(400):
        q = torch.einsum("sat,tg->sag", world.P, torch.where(eye > 0, 1.0, GAMMA * q.amax(1)))
    return q


# ------------------------------------------------------------------------------- mountain car

CAR, LOW, HIGH, NET_STEPS = DiscreteMountainCar(), (-1.2, -0.07), (0.6, 0.07), 1500
PLACES = torch.linspace(-1.2, 0.6, 4)[:, None]


def driver(points: int = 200) -> GoalGrid:
    """Optimal values of reaching four places, within 0.1."""

    def there(x: Tensor, g: Tensor) -> Tensor:
        return ((x[:, :1] - g).abs()[:, 0] < 0.1).float()

    return goal_grid(CAR.moves, Grid(LOW, HIGH, points), 3, PLACES, there, there)


def fast(moves: Any) -> GoalGrid:
    """Plans of a speed of 0.06, within 0.01, in some model of the car: not one of the driver's."""

    def there(x: Tensor, g: Tensor) -> Tensor:
        return ((x[:, 1:] - g).abs()[:, 0] < 0.01).float()

    return goal_grid(moves, Grid(LOW, HIGH, 120), 3, torch.tensor([[0.06]]), there, there)


@torch.no_grad()
def driven(plan: GoalGrid, starts: Tensor, steps: int = 200) -> float:
    """The mean discounted worth of a plan, driven in the true car."""
    x, worth, waiting = starts, torch.zeros(len(starts)), torch.ones(len(starts))
    goal = torch.zeros(len(starts), dtype=torch.long)
    for t in range(steps):
        x = CAR.moves(x, plan.act(x))
        there = plan.reward(x, goal) * waiting
        worth, waiting = worth + 0.99**t * there, waiting * (1.0 - there)
    return float(worth.mean())


@torch.no_grad()
def one_step(model: Any, g: torch.Generator) -> dict[str, tuple[float, float]]:
    """The error of the next state over its variance, mean over place and speed, of a model and of a
    car that keeps its speed: everywhere, and where the car does not run into the wall."""
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    x = low + (high - low) * torch.rand(20_000, 2, generator=g)
    a = torch.randint(3, (len(x),), generator=g)
    true = CAR.moves(x, a)
    keeps = torch.stack([(x[:, 0] + x[:, 1]).clamp(LOW[0], HIGH[0]), x[:, 1]], -1)
    errors = [(p - true).square() / true.var(0) for p in (model(x, a), keeps)]
    free = true[:, 0] > LOW[0]
    return {
        "everywhere": (float(errors[0].mean()), float(errors[1].mean())),
        "free": (float(errors[0][free].mean()), float(errors[1][free].mean())),
    }


def _tables(seed: int) -> dict[str, float]:
    """Errors of kernels and worths of plans in the four rooms, by goals and world."""
    g = torch.Generator().manual_seed(seed)
    found: dict[str, float] = {}
    for kind in KINDS:
        world = four_rooms(kind, GAMMA)
        agent = exact(world, torch.rand(68, 68, generator=g, dtype=torch.float64))
        for goals in (1, 4, 20, 68):
            free = on_simplex()(agent.goals(slice(0, goals)))
            found[f"{kind} {goals}"] = off(free, world)
            found[f"{kind} {goals} norm"] = off(least_norm()(agent.goals(slice(0, goals))), world)
        found[f"{kind} plan"] = unseen(free, world, g)
        if kind == "plain":
            one = nearest_next()(agent.goals([0]))
            found["one goal"] = float((one == world.P).all(-1).double().mean())
        if kind == "windy":
            some = on_simplex(near(world))(agent.goals(slice(0, 4)))
            found["neighbors"], found["neighbors plan"] = off(some, world), unseen(some, world, g)
    world = four_rooms("windy", GAMMA)
    truth, way = toward_cells(world), learned(world, MARKS, g)
    agents = [Beliefs(q, way.reward, GAMMA, way.done) for q in way.q]
    models = [on_simplex(near(world))(a) for a in agents]
    errors = [float((q - truth).square().mean().sqrt()) for q in way.q]
    found["rank"] = float(spearmanr(errors, [off(m, world) for m in models])[0])  # type: ignore[arg-type]
    found["learned plan"] = unseen(models[-1], world, g)
    return found


@evidence(
    "p-learning",
    claim="a net that explains a driver's values for four places predicts the next state of a car "
    "that it never saw move, with at most a fifth of the error of assuming that the speed stays, "
    "but for the wall, which stops the car: values are flat in speed there, and give no gradient; "
    "kernels of four rooms are recovered exactly from one goal (deterministic), four (windy, "
    "neighbors known) or all, and plans for unseen goals in them are worth at least 95 % of the "
    "best",
    setting="mountain car with values of reaching four places from value iteration on a grid of "
    "200 x 200; four rooms of 68 cells, deterministic, windy and teleporting, with goals that pay "
    "everywhere at random; and Q-learning toward every cell of the windy rooms",
    baseline="a car that keeps its speed",
    metric="squared error of the next state over its variance, off the wall",
    bar=at_most(0.2, times=True),
    seeds=5,
    minutes=12,
)
def p_learning_evidence(seed: int, zoo: Any) -> Result:
    agent, g = driver(), torch.Generator().manual_seed(seed)
    form = p_learning_net(LOW, HIGH, lr=2e-3, steps=NET_STEPS, batch=1024, hidden=(64, 64))
    trained = train(form, task=CAR, steps=NET_STEPS, seed=seed, agent=agent)
    net = trained.nets["model"]
    error = one_step(net, g)
    starts = torch.stack([0.2 * torch.rand(256, generator=g) - 0.6, torch.zeros(256)], -1)
    with torch.no_grad():
        planned = driven(fast(net), starts)
    best = driven(fast(CAR.moves), starts)
    t = _tables(seed)
    exact_enough, hopeless = at_most(1e-6, alone=True), at_least(1e-4, alone=True)
    nearly = at_least(0.95, alone=True)
    return Result(
        *error["free"],
        {
            "squared error with the wall": (*error["everywhere"], at_most(1e-2, alone=True)),
            "worth of driving fast, a goal it had not": (planned, best, at_least(0.95, times=True)),
            "plain: next states that are right, one goal": (
                t["one goal"], 1.0, at_least(1.0, alone=True),
            ),
            "windy: squared error, four goals and neighbors known": (
                t["neighbors"], t["windy 4"], exact_enough,
            ),
            "windy: squared error, 68 goals": (t["windy 68"], t["windy 68 norm"], exact_enough),
            "teleport: squared error, 68 goals": (
                t["teleport 68"], t["teleport 68 norm"], exact_enough,
            ),
            "windy: squared error, 20 goals, against least norm": (
                t["windy 20"], t["windy 20 norm"],
            ),
            "teleport: squared error, 20 goals, against least norm": (
                t["teleport 20"], t["teleport 20 norm"],
            ),
            "windy: squared error, one goal (too few)": (t["windy 1"], 0.0, hopeless),
            "plans for unseen goals, windy, neighbors known": (t["neighbors plan"], 1.0, nearly),
            "plans for unseen goals, teleport": (t["teleport plan"], 1.0, nearly),
            "rank correlation of a learning agent's error and its model's": (
                t["rank"], 1.0, at_least(0.8, alone=True),
            ),
            "plans for unseen goals, learned values": (t["learned plan"], 1.0, nearly),
        },
    )  # fmt: skip
