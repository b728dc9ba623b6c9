"""What must hold in each state of a sweep, and after each step."""

from __future__ import annotations

from joyful.sweeper.worker import MAXIMUM_FAILURES
from tests.exhaustive.actors import name_of, value_at
from tests.exhaustive.world import DEAD, State, Step, World

FINISHED = ("COMPLETE", "PRUNED", "FAIL")


def all_finished(world: World, state: State) -> bool:
    """Return whether all trials have finished."""
    return all(name in FINISHED for _, name in world.rows(state, "trials"))


def broken_state(world: World, state: State) -> str | None:
    """Return which invariant a state breaks, None if it breaks none."""
    leases = {row[0]: row for row in world.rows(state, "lease")}
    for number, process in enumerate(state.processes):
        phase = world.phase(process)
        if phase.name.startswith("failed"):
            return f"worker p{number} {phase.name}"
        if (
            phase.name == "ended"
            and process.status != DEAD
            and number == phase.driver
            and not all_finished(world, state)
        ):
            return f"driver p{number} ended before all trials finished"
        if phase.lease is None or process.status == DEAD or process.was_frozen:
            continue
        trial = phase.lease.number
        if leases[trial][1] != name_of(number):
            return f"p{number} lost trial {trial} although it was never frozen: two processes hold the trial"
    for trial, own in leases.items():
        if own[4] > state.faults:
            return f"trial {trial} has {own[4]} worker failures after {state.faults} faults"
    for trial, name in world.rows(state, "trials"):
        if name == "FAIL" and leases[trial][4] < MAXIMUM_FAILURES:
            return f"trial {trial} failed after {leases[trial][4]} worker failures"
        value = _value(world, state, trial)
        if name == "COMPLETE" and (state.trained[trial], value) != (world.steps, value_at(trial, world.steps)):
            return f"trial {trial} is complete with the value {value} after {state.trained[trial]} steps"
        # a worker that lost the trial may train further, but does not report it
        if name == "PRUNED" and (world.policy is None or leases[trial][3] == world.steps):
            return f"trial {trial} is pruned after it reported {leases[trial][3]} of {world.steps} steps"
    for trial, ends in enumerate(state.ends):
        if ends > 1 + state.faults:
            return f"trial {trial} was trained to its end {ends} times after {state.faults} faults"
    return None


def _value(world: World, state: State, trial: int) -> float | None:
    return next((value for trial_id, _, value in world.rows(state, "trials", 1) if trial_id == trial + 1), None)


def broken_step(world: World, before: State, step: Step, after: State) -> str | None:
    """Return which invariant a step breaks, None if it breaks none."""
    statement, process = (
        step.statement,
        before.processes[step.process] if step.process < len(before.processes) else None,
    )
    if statement is None or process is None:
        return None
    if process.knows and (statement.trial is not None or statement.kind in ("lock", "train")):
        return f"p{step.process} writes to a trial although it was told that its lease is lost"
    if before.database == after.database:
        return None
    states = dict(world.rows(before, "trials"))
    changed = [n for n, name in world.rows(after, "trials") if states[n] in FINISHED and states[n] != name]
    return f"trial {changed[0]} was finished and changed its state" if changed else None


def told(world: World, before: State, step: Step, after: State) -> State:
    """Record that a process was told that its lease is lost: it has checked a lease which another holds."""
    if step.statement is None or step.statement.lease is None:
        return after
    process, old = after.processes[step.process], before.processes[step.process]
    phase = world.phase(old)
    if phase.lease is None or world.phase(process) is not phase or step.statement.lease != phase.lease.number:
        return after
    if world.owner(before, phase.lease.number) == name_of(step.process):
        return after
    processes = list(after.processes)
    processes[step.process] = process._replace(knows=True)
    return after._replace(processes=tuple(processes))
