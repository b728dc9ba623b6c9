"""A sweep under submitit's local executor, which starts workers as Slurm does."""

import pytest

from tests.support import sweeps
from tests.support.launchers import LauncherSuite, trainers

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'joyful-sweeps[sweep]'")


class TestSubmitit(LauncherSuite):
    @pytest.fixture
    def launcher(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        return ["hydra/launcher=submitit_local"]

    @pytest.mark.soak("takes half a minute; a small program runs here")
    def test_workers_train_all_trials(self, sweep, tmp_path):
        super().test_workers_train_all_trials(sweep, tmp_path)

    def look_at_workers(self, folder):
        """Each training process has another GPU. The executor itself hides all GPUs."""
        sweeps.wait_until(lambda: len(trainers(folder)) == 2, 300)
        assert {p.environ()["CUDA_VISIBLE_DEVICES"] for p in trainers(folder)} == {"0", "1"}
