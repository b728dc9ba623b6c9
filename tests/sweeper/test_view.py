"""The display of a sweep: a panel in a terminal, plain lines elsewhere."""

import dataclasses
import io
import itertools
import re
from pathlib import Path

import pytest
from rich.console import Console

from joyful.sweeper import view
from joyful.sweeper.live import LiveState
from joyful.sweeper.status import Snapshot, _seconds_left
from joyful.sweeper.trial_table import FinishedTrial
from joyful.sweeper.view import SweepView, print_snapshot
from joyful.sweeper.view_text import describe_claims, format_duration, format_line
from tests.support.manual_clock import ManualClock

FOLDER = Path("multirun/weights")
STARTED = Snapshot(
    name="weights", n_trials=27, complete=0, pruned=0, failed=0, running=2, waiting=25, best_value=None, best_trial=None,
    best_params={}, workers=2, seconds_left=None, failures={},
)  # fmt: skip
LATER = dataclasses.replace(
    STARTED, complete=9, pruned=3, failed=1, waiting=12, best_value=0.61234, best_trial=4, seconds_left=4000.0,
    best_params={"weights.encoder_loss_weight": 0.0312345, "weights.cl_loss_weight": 0.2, "fusion": "auto"},
    failures={7: "the loss is not finite in epoch 3; lower optimizer.learning_rate"},
)  # fmt: skip
BEST = "weights.encoder_loss_weight=0.03123, weights.cl_loss_weight=0.2, fusion=auto"


def console(terminal, width=80):
    # without colours, so that only the text is compared
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False, no_color=True)


def output_of(console):
    return console.file.getvalue()


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A manual clock for the view, so that a busy machine does not slow reads down."""
    clock = ManualClock()
    monkeypatch.setattr(view, "time", clock)
    return clock


def test_one_line():
    assert format_line(STARTED) == "sweep weights: 0 of 27 trials done (0 complete, 0 pruned, 0 failed), 2 running"
    paused = dataclasses.replace(STARTED, paused={3: 6, 9: 1})
    assert format_line(paused).endswith("0 failed), 2 running, 7 paused (6 at step 3, 1 at step 9)")
    assert format_line(LATER) == (
        "sweep weights: 13 of 27 trials done (9 complete, 3 pruned, 1 failed), 2 running; "
        f"best 0.6123 (trial 4: {BEST}); about 1 h 06 min left"
    )


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.2, "0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (3599.7, "1 h 00 min"), (90_000, "25 h 00 min")],
)
def test_durations(seconds, expected):
    assert format_duration(seconds) == expected


def test_without_a_terminal_a_line_is_printed_only_when_a_trial_has_finished():
    output = console(terminal=False)
    snapshots = iter([STARTED, dataclasses.replace(STARTED, running=1), LATER, LATER, LATER])
    with SweepView(lambda: LiveState(next(snapshots)), FOLDER, output) as sweep_view:
        for _ in range(3):
            sweep_view.update()
    assert output_of(output).splitlines() == [format_line(STARTED), format_line(LATER)]  # long lines are not wrapped


def test_the_panel_is_erased_at_the_end():
    output = console(terminal=True)
    with SweepView(lambda: LiveState(LATER), FOLDER, output) as sweep_view:
        sweep_view.update()
        panel = output_of(output)
    assert "sweep weights  multirun/weights" in panel
    assert "━" in panel
    assert "\x1b[?25l" in panel  # the cursor is hidden
    assert (
        output_of(output).endswith("\x1b[1A\x1b[2K") or "\x1b[2K" in output_of(output)[len(panel) :]
    )  # its lines are erased
    assert output_of(output).count("\x1b[?25h") == 1  # the cursor is shown again


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_is_cut_off_in_a_narrow_terminal(width):
    output = console(terminal=True, width=width)
    print_snapshot(LATER, FOLDER, output)
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", output_of(output)).split())
    for part in (
        "13/27 trials",
        "9 complete",
        "2 running",
        "12 waiting",
        "3 pruned",
        "1 failed",
        "2 workers",
        "1 h 06 min left",
    ):
        assert part in text
    assert not any("━" in row and "trials" in row for row in output_of(output).splitlines())
    assert "".join(BEST.split()) in "".join(text.split())


def test_status_without_a_terminal_prints_plain_lines():
    output = console(terminal=False, width=40)
    print_snapshot(LATER, FOLDER, output)
    assert output_of(output).splitlines() == [
        "sweep weights  multirun/weights",
        "13/27 trials  9 complete  2 running  12 waiting  3 pruned  1 failed  2 workers  about 1 h 06 min left",
        f"best 0.6123, trial 4: {BEST}",
        f"trial 7 failed: {LATER.failures[7]}",
    ]


def test_the_time_left_excludes_interrupted_trials_and_counts_trained_epochs():
    # Two trials of 10 epochs in 20 s, one that was interrupted for a day, one half done, one not started. By hand: 5 +
    # 10 epochs of 2 s on two workers.
    finished = [FinishedTrial(20, 10, 1), FinishedTrial(20, 10, 1), FinishedTrial(86_400, 10, 2)]
    assert _seconds_left(finished, {5: 1}, unfinished=2, workers=2) == pytest.approx(15.0)
    assert _seconds_left(finished[2:], {5: 1}, 2, workers=1) is not None  # a poor estimate is better than none
    assert _seconds_left([], {5: 1}, 2, workers=1) is None


def test_the_time_left_falls_as_epochs_are_trained():
    left = [_seconds_left([FinishedTrial(20, 10, 1)], {n: 1}, 1, 1) for n in range(0, 13, 3)]
    assert left == [20.0, 14.0, 8.0, 2.0, 0.0]
    assert all(a > b for a, b in itertools.pairwise(left))


@pytest.mark.parametrize(
    ("begun", "seconds", "pause"),
    [
        (100.0, 0.03, 0.03 * 49),  # reading may take 2 % of the time
        (100.0, 60.0, view.MAXIMUM_PAUSE),
        (0.0, 0.3, view.FIRST_PAUSE),  # workers start
    ],
)
def test_a_slow_read_is_followed_by_a_pause(clock, begun, seconds, pause):
    reads = []

    def take():
        reads.append(1)
        clock.now += seconds
        return LiveState(STARTED)

    sweep_view = SweepView(take, FOLDER, console(terminal=False))
    clock.now += begun
    with sweep_view:
        clock.now += pause - 0.01
        sweep_view.update()
        assert len(reads) == 1
        clock.now += 0.02
        sweep_view.update()
        assert len(reads) == 2


def test_a_fast_read_is_not_followed_by_a_pause(clock):
    reads = []

    def take():
        reads.append(1)
        clock.now += view.CHEAP_SECONDS / 2
        return LiveState(STARTED)

    with SweepView(take, FOLDER, console(terminal=False)) as sweep_view:
        for _ in range(4):
            sweep_view.update()
        assert len(reads) == 5


def test_without_a_terminal_a_line_is_printed_once_a_minute(clock):
    output = console(terminal=False)
    with SweepView(lambda: LiveState(LATER), FOLDER, output) as sweep_view:
        for _ in range(12):
            clock.now += 10.0
            sweep_view.update()
    assert output_of(output).splitlines() == [format_line(LATER)] * 2


def test_the_claims_of_a_sweep_that_buys_pairs():
    line = {
        "claim": "f1", "metric": "best dev f1", "arm": "b", "task": "", "state": "open", "verdict": "inconclusive",
        "detail": "", "estimate": 0.5, "low": -1.0, "high": None, "seeds": (1, 2), "claimed": "1 to 2 points increase",
    }  # fmt: skip
    decided = line | {"claim": "speed", "state": "decided", "verdict": "supported", "seeds": (1, 2, 3)}
    unknown = line | {"claim": "loss", "verdict": "not testable", "detail": "2 pairs, at least 6 are needed"}
    snapshot = dataclasses.replace(STARTED, pairs=2, max_pairs=60, claims=[line, decided, unknown])
    assert "2 of at most 60 pairs judged, 2 of 3 claims open" in format_line(snapshot)
    plain = console(False, 200)
    print_snapshot(snapshot, FOLDER, plain)
    shown = output_of(plain)
    assert "open: f1 (best dev f1): 0.5 (-1 to unbounded), claimed 1 to 2 points increase" in shown
    assert "open: loss (best dev f1): 2 pairs, at least 6 are needed, claimed" in shown
    assert "supported: speed (best dev f1), 3 pairs" in shown
    many = dataclasses.replace(snapshot, claims=[line] * 30)
    assert "open: 20 more" in describe_claims(many)[-1]
