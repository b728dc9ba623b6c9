"""Import of AlgoPerf's measurements.csv. The files are written by this test, in the form of published ones."""

from tests.support.importing import curve, read_runs_of, refusal

TABLE = (
    "accumulated_eval_time,accumulated_logging_time,accumulated_submission_time,global_step,preemption_count,score,"
    "test/accuracy,total_duration,train/loss,validation/accuracy\n"
    "3.8,0.0,10.5,100,0,10.5,0.09,14.4,2.47,0.0911\n"
    "3.9,0.1,21.0,200,0,21.0,0.20,25.0,2.01,0.1987\n"
)


def write(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True)
        path.write_text(TABLE)


def test_folders_give_arm_task_and_seed(tmp_path):
    write(
        tmp_path,
        "nadamw/study_0/mnist_jax/trial_1/measurements.csv",
        "nadamw/study_1/wmt_jax/trial_2/eval_measurements.csv",
    )
    write(tmp_path, "shampoo/study_1/mnist_jax/trial_2/measurements.csv")
    (tmp_path / "shampoo/study_1/mnist_jax/trial_2/eval_measurements.csv").write_text("not read")
    runs = read_runs_of("algoperf", tmp_path)
    assert [(run.arm, run.task, run.seed) for run in runs] == [
        ("nadamw", "mnist_jax", 1), ("nadamw", "wmt_jax", 1002), ("shampoo", "mnist_jax", 1002),
    ]  # fmt: skip
    assert curve(runs[0], "dev", "accuracy") == [(100, 0.0911), (200, 0.1987)]
    assert curve(runs[0], "test", "accuracy", "seconds") == [(10.5, 0.09), (21.0, 0.2)]
    assert {column.name for column in runs[0].columns()} == {"loss", "accuracy"}


def test_a_single_submission_takes_the_name_of_its_folder(tmp_path):
    write(tmp_path, "nadamw/study_0/mnist_jax/trial_1/measurements.csv")
    assert read_runs_of("algoperf", tmp_path / "nadamw")[0].arm == "nadamw"
    run = read_runs_of(
        "algoperf", tmp_path, "--arm-from", "/(.*_jax)/", "--seed-from", "study_(.)", "--task-from", "nadamw"
    )[0]
    assert (run.arm, run.seed, run.task) == ("study_0/mnist_jax", 0, "nadamw")


def test_damaged_files_are_refused_with_the_line(tmp_path):
    write(tmp_path, "a/study_0/mnist_jax/trial_1/measurements.csv")
    path = tmp_path / "a/study_0/mnist_jax/trial_1/measurements.csv"
    path.write_text(TABLE.replace("0.1987", "fast"))
    assert f"{path}, line 3: validation/accuracy: expected a number" in refusal("algoperf", tmp_path / "a")
    path.write_text(TABLE.replace("global_step", "steps"))
    assert f"{path}, line 1: the header lacks 'global_step'" in refusal("algoperf", tmp_path / "a")
