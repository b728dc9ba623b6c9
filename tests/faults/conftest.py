"""What several fault tests use. The counts, the seed and the table: joyful/testing/faults.py."""

import pytest

from joyful.testing.trainers import Trainers


@pytest.fixture(scope="module")
def trainers(tmp_path_factory):
    """Starts tiny runs in processes of their own, quickly."""
    with Trainers(tmp_path_factory.mktemp("logs")) as server:
        yield server
