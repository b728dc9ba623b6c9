"""Import of progress.csv and monitor.csv of Stable-Baselines3."""

import pytest

from tests.support.importing import FIXTURES, copied, curve, read_runs_of, refusal

OPTIONS = ("--arm-from", "^([^/]+)/", "--seed-from", "seed_(.)")


def test_progress_has_steps_seconds_and_the_splits_of_its_groups():
    runs = read_runs_of("sb3", FIXTURES / "sb3", *OPTIONS)
    assert [(run.arm, run.seed) for run in runs] == [("width_4", 1), ("width_4", 2), ("width_8", 1), ("width_8", 2)]
    assert curve(runs[0], "dev", "mean_reward") == [(64, 116.0), (128, 88.0), (192, 51.0)]
    rewards = [(64, 28.0), (128, 18.142857142857142), (192, 17.5)]
    assert curve(runs[0], "train", "ep_rew_mean") == rewards
    assert curve(runs[0], "train", "loss") == [(128, 47.99159622192383), (192, 24.142627716064453)]
    # the seconds of a step are in another line than its evaluation
    assert curve(runs[0], "dev", "seconds") == [(64, 0), (128, 1), (192, 3)]
    assert curve(runs[0], "dev", "mean_reward", "epoch")[0] == (None, 116.0)


def test_rollouts_can_belong_to_dev():
    runs = read_runs_of("sb3", FIXTURES / "sb3", *OPTIONS, "--split-prefix", "rollout/=dev")
    assert curve(runs[0], "dev", "ep_rew_mean")[0] == (64, 28.0)


def test_monitor_has_an_episode_per_row():
    runs = read_runs_of("sb3", FIXTURES / "sb3", *OPTIONS, "--monitor", "--split-prefix", "=dev")
    assert (runs[0].arm, runs[0].seed, runs[0].task) == ("width_4", 1, "CartPole-v1")
    rewards = [15, 41, 10, 18, 12, 17, 14, 16, 10, 22]
    assert curve(runs[0], "dev", "ep_rew") == [(sum(rewards[: i + 1]), reward) for i, reward in enumerate(rewards)]
    seconds = [seconds for _, seconds in curve(runs[0], "dev", "seconds")]
    assert seconds[:2] == pytest.approx([2.093107, 2.134219], abs=1e-6)


def test_the_environments_of_a_run_are_merged_by_time(tmp_path):
    header = '#{{"t_start": {}, "env_id": "Ant-v5"}}\nr,l,t\n'
    (tmp_path / "a-1").mkdir()
    (tmp_path / "a-1" / "0.monitor.csv").write_text(header.format(100.0) + "1.0,10,1.0\n3.0,30,4.0\n")
    (tmp_path / "a-1" / "1.monitor.csv").write_text(header.format(101.0) + "2.0,20,1.5\n")
    run = read_runs_of("sb3", tmp_path, "--arm", "a", "--seed-from", "a-(.)")[0]
    assert curve(run, "train", "ep_rew") == [(10, 1.0), (30, 2.0), (60, 3.0)]
    assert curve(run, "train", "seconds") == [(10, 1.0), (30, 2.5), (60, 4.0)]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("progress.csv", "88.0,128", "88.0,12x8", "progress.csv, line 4: time/total_timesteps: expected a number"),
        (
            "progress.csv",
            "time/total_timesteps",
            "steps",
            "progress.csv, line 1: the header lacks 'time/total_timesteps'",
        ),
        ("0.monitor.csv", "41.0,41", "41.0,", "0.monitor.csv, line 4: l: expected an integer"),
        ("0.monitor.csv", "r,l,t", "r,l", "0.monitor.csv, line 2: the header lacks 't'"),
        ("0.monitor.csv", '"t_start"', "t_start", "0.monitor.csv, line 1: expected a first line such as"),
    ],
)
def test_damaged_files_are_refused_with_the_line(tmp_path, file, old, new, message):
    path = copied("sb3", tmp_path) / "width_4" / "seed_1" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    monitor = ("--monitor",) if "monitor" in file else ()
    assert message in refusal("sb3", tmp_path / "sb3", *OPTIONS, *monitor)
