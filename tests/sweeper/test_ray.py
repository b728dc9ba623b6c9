"""A sweep on a Ray cluster of two nodes on this machine."""

import shutil

import pytest

from tests.support.launchers import LauncherSuite

pytest.importorskip("ray", reason="Ray is not installed: pip install 'joyful-sweeps[sweep]'")


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        cluster.add_node(**small)
        yield cluster
    finally:
        session = cluster.head_node.get_session_dir_path()
        cluster.shutdown()
        shutil.rmtree(session, ignore_errors=True)


@pytest.mark.soak("starts a cluster; test_submitit.py runs the same tests with another launcher")
class TestRay(LauncherSuite):
    @pytest.fixture
    def launcher(self, cluster):
        return ["hydra/launcher=ray", f"hydra.launcher.ray.init.address={cluster.address}"]
