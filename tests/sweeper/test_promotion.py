"""The rule of paused and promoted trials: examples, and a plain slow twin on random histories."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping

import pytest

from joyful.sweeper.promotion import Action, Ladder, Policy, State

THIRDS = Policy(first_rung=3, reduction_factor=3, maximize=True)

#: State and values by step of each trial.
Trials = dict[int, tuple[State, dict[int, float]]]


def ladder_of(trials: Mapping[int, tuple[State, Mapping[int, float]]], policy: Policy = THIRDS) -> Ladder:
    ladder = Ladder(policy)
    for number, (state, values) in trials.items():
        ladder.put(number, state, values)
    return ladder


def at_rung(*values: float, step: int = 3) -> Trials:
    return {number: (State.FREE, {step: value}) for number, value in enumerate(values)}


def test_the_best_third_of_a_rung_is_promoted() -> None:
    trials = at_rung(0.1, 0.3, 0.2) | {3: (State.WAITING, {})}
    assert ladder_of(trials).next_action() == Action("promote", (1,))
    trials[1] = (State.HELD, {3: 0.3})
    assert ladder_of(trials).next_action() == Action("start", (3,))
    trials[1] = (State.FREE, {3: 0.3, 4: 0.3})
    assert ladder_of(trials).next_action() == Action("resume", (1,))
    assert ladder_of(trials).paused() == {0: 3, 2: 3}


def test_fewer_trials_than_the_factor_are_paused_while_others_may_come() -> None:
    trials = at_rung(0.1, 0.2) | {2: (State.WAITING, {})}
    assert ladder_of(trials).next_action() == Action("start", (2,))
    trials[2] = (State.HELD, {1: 0.5})
    assert ladder_of(trials).next_action() == Action("wait")
    trials[2] = (State.FAILED, {3: 0.5})
    assert ladder_of(trials).next_action() == Action("promote", (1,))


def test_minimize_ranks_small_values_first() -> None:
    policy = Policy(first_rung=3, reduction_factor=3, maximize=False)
    assert ladder_of(at_rung(0.3, 0.1, 0.2), policy).next_action() == Action("promote", (1,))


@pytest.mark.parametrize("maximize", [True, False])
def test_nan_is_the_worst_value(maximize: bool) -> None:
    policy = Policy(first_rung=3, reduction_factor=3, maximize=maximize)
    assert ladder_of(at_rung(math.nan, 0.2, math.nan), policy).next_action() == Action("promote", (1,))


def test_the_lower_number_wins_ties() -> None:
    assert ladder_of(at_rung(0.2, 0.2, 0.2)).next_action() == Action("promote", (0,))


def test_higher_rungs_come_first() -> None:
    top = {n: (State.FREE, {3: 0.5, 9: 0.5 + n / 100}) for n in range(3)}
    low = {n: (State.FREE, {3: 0.6}) for n in range(3, 12)}
    assert ladder_of(top | low).next_action() == Action("promote", (2,))


def test_a_step_past_a_rung_reaches_it() -> None:
    trials: Trials = {n: (State.FREE, {2: 0.9, 5: value}) for n, value in enumerate([0.1, 0.3, 0.2])}
    assert ladder_of(trials).paused() == {0: 3, 1: 3, 2: 3}
    assert ladder_of(trials).next_action() == Action("promote", (1,))
    assert ladder_of({0: (State.FREE, {2: 0.1, 10: 0.1})}).paused() == {0: 9}


def test_a_report_continues_only_among_the_best() -> None:
    trials = at_rung(0.1, 0.3) | {2: (State.HELD, {3: 0.2}), 3: (State.WAITING, {})}
    assert ladder_of(trials).pauses(2)
    trials[2] = (State.HELD, {3: 0.4})
    assert not ladder_of(trials).pauses(2)
    trials[2] = (State.HELD, {3: 0.2, 4: 0.2})
    assert not ladder_of(trials).pauses(2)


def test_breadth_first_starts_all_trials_before_it_promotes() -> None:
    policy = Policy(first_rung=3, reduction_factor=3, maximize=True, breadth_first=True)
    trials = at_rung(0.1, 0.3, 0.2) | {3: (State.HELD, {3: 0.4}), 4: (State.WAITING, {})}
    assert ladder_of(trials, policy).pauses(3)
    assert ladder_of(trials, policy).next_action() == Action("start", (4,))
    del trials[4]
    assert not ladder_of(trials, policy).pauses(3)


def test_a_small_search_trains_one_trial_to_its_end() -> None:
    trials = at_rung(0.1, 0.2)
    assert ladder_of(trials).next_action() == Action("promote", (1,))
    trials[1] = (State.FREE, {3: 0.2, 9: 0.3})
    assert ladder_of(trials).next_action() == Action("promote", (1,))
    trials[1] = (State.COMPLETE, {3: 0.2, 9: 0.3, 10: 0.3})
    assert ladder_of(trials).next_action() == Action("end", (0,))
    trials[1] = (State.FAILED, {3: 0.2, 9: 0.3, 10: 0.3})
    assert ladder_of(trials).next_action() == Action("promote", (0,))


def test_no_trial_is_paused_at_its_last_step() -> None:
    known = Policy(first_rung=3, reduction_factor=3, maximize=True, last_step=9)
    trials: Trials = {n: (State.HELD, {3: 0.1, 9: 0.1}) for n in range(4)}
    assert not ladder_of(trials, known).pauses(0)
    assert ladder_of(trials | {9: (State.WAITING, {})}).pauses(3)
    trials[0] = (State.COMPLETE, {3: 0.1, 9: 0.1})
    assert not ladder_of(trials).pauses(3)
    trials[3] = (State.FREE, {3: 0.0, 9: 0.0})
    assert ladder_of(trials).next_action() == Action("resume", (3,))
    assert ladder_of(dict(reversed(trials.items()))).next_action() == Action("resume", (3,))


def test_nothing_is_left_of_a_finished_search() -> None:
    assert ladder_of({0: (State.COMPLETE, {9: 1.0}), 1: (State.PRUNED, {3: 0.1})}).next_action() == Action("wait")


# --- a slow twin


def twin_reached(policy: Policy, values: Mapping[int, float]) -> list[tuple[int, float]]:
    """Return for each rung that a trial has reached the step and the cost."""
    found, rung = [], policy.first_rung
    while values and rung <= max(values) and (policy.last_step is None or rung < policy.last_step):
        step = min(s for s in values if s >= rung)
        value = values[step]
        found.append((step, math.inf if value != value else -value if policy.maximize else value))
        rung *= policy.reduction_factor
    return found


class Twin:
    """The rule written down in the plainest way, from the whole history each time."""

    def __init__(self, policy: Policy, trials: Trials) -> None:
        self.policy, self.trials = policy, trials
        self.reached = {n: twin_reached(policy, {} if s == State.WAITING else v) for n, (s, v) in trials.items()}
        complete = [max(v, default=0) for s, v in trials.values() if s == State.COMPLETE]
        self.longest = max(complete, default=0) or math.inf

    def stopped(self, n: int) -> bool:
        last = max(self.trials[n][1], default=0)
        return bool(self.reached[n]) and self.reached[n][-1][0] == last and last < self.longest

    def of(self, state: State) -> list[int]:
        return [n for n, (s, _) in self.trials.items() if s == state]

    def paused(self, level: int | None = None) -> list[int]:
        return [n for n in self.of(State.FREE) if self.stopped(n) and level in (None, len(self.reached[n]) - 1)]

    def interrupted(self) -> list[int]:
        return [n for n in self.of(State.FREE) if not self.stopped(n)]

    def may_come(self, level: int) -> bool:
        below = [n for n in self.of(State.HELD) if len(self.reached[n]) <= level]
        lower = any(n in self.leavers(k) for k in range(level) for n in self.paused(k))
        return bool(self.of(State.WAITING) or self.interrupted() or below or lower)

    def leavers(self, level: int) -> list[int]:
        there = [n for n in self.trials if self.trials[n][0] != State.FAILED and len(self.reached[n]) > level]
        there.sort(key=lambda n: (self.reached[n][level][1], n))
        count = len(there) // self.policy.reduction_factor
        return there[: count if self.may_come(level) else max(count, 1)]

    def action(self) -> Action:
        waiting = self.of(State.WAITING)
        if self.interrupted():
            return Action("resume", (min(self.interrupted()),))
        if not (waiting and self.policy.breadth_first):
            for level in range(20, -1, -1):
                chosen = [n for n in self.leavers(level) if n in self.paused(level)]
                if chosen:
                    return Action("promote", (chosen[0],))
        if waiting:
            return Action("start", (min(waiting),))
        if self.of(State.HELD) or not self.paused():
            return Action("wait")
        return Action("end", tuple(sorted(self.paused())))

    def pauses(self, n: int) -> bool:
        if not self.stopped(n):
            return False
        if self.policy.breadth_first and self.of(State.WAITING):
            return True
        return n not in self.leavers(len(self.reached[n]) - 1)


def random_search(rng: random.Random, policy: Policy, length: int) -> None:
    """Run a search of random values, deaths, failures and skipped steps, and compare each decision with the twin."""
    trials: Trials = {n: (State.WAITING, {}) for n in range(rng.randint(1, 12))}
    ladder = ladder_of(trials, policy)

    def put(n: int, state: State, values: dict[int, float]) -> None:
        trials[n] = (state, values)
        ladder.put(n, state, values)

    for _ in range(2000):
        held = [n for n, (s, _) in trials.items() if s == State.HELD]
        twin = Twin(policy, trials)
        action = ladder.next_action()
        assert action == twin.action()
        if held and (action.kind == "wait" or rng.random() < 0.6):
            n = rng.choice(held)
            values, event = trials[n][1], rng.random()
            if event < 0.05:
                put(n, State.FAILED, values)
            elif event < 0.12:
                put(n, State.FREE, values)  # its worker was killed
            elif max(values, default=0) >= length:
                put(n, State.COMPLETE, values)
            else:
                step = min(length, max(values, default=0) + rng.choice([1, 1, 1, 2, 4]))
                value = rng.choice([rng.random(), round(rng.random(), 1), math.nan])
                put(n, State.HELD, values | {step: value})
                pauses = ladder.pauses(n)
                assert pauses == Twin(policy, trials).pauses(n)
                if pauses:
                    put(n, State.FREE, trials[n][1])
        elif action.kind == "end":
            for n in action.numbers:
                put(n, State.PRUNED, trials[n][1])
        elif action.numbers:
            put(action.numbers[0], State.HELD, trials[action.numbers[0]][1])
        elif not held:
            break
    finished = (State.COMPLETE, State.PRUNED, State.FAILED)
    assert all(state in finished for state, _ in trials.values()), "the search did not end"
    assert State.COMPLETE in {s for s, _ in trials.values()} or {s for s, _ in trials.values()} == {State.FAILED}


@pytest.mark.parametrize("seed", range(60))
def test_decisions_equal_those_of_the_twin(seed: int) -> None:
    rng = random.Random(seed)
    length = rng.randint(1, 12)
    policy = Policy(
        rng.randint(1, 3), rng.randint(2, 4), rng.random() < 0.5, rng.random() < 0.5, rng.choice([None, length])
    )
    random_search(rng, policy, length)


def test_decisions_about_10000_trials_take_milliseconds() -> None:
    rng = random.Random(0)
    ladder = Ladder(THIRDS)
    for number in range(10_000):
        ladder.put(number, State.FREE, {3: rng.random(), **({9: rng.random()} if number % 3 == 0 else {})})
    times = []
    for number in range(10_000, 10_020):
        start = time.perf_counter()
        ladder.put(number, State.HELD, {3: rng.random()})
        ladder.pauses(number)
        ladder.next_action()
        times.append(time.perf_counter() - start)
    assert sorted(times)[10] < 0.02, times
