"""The tuned presets: they equal confirmed arms, and their comments claim only what the comparisons show."""

import pytest
import yaml

from study.tables import PARTS
from tests.support.runs import CONF, compose_plain

pytestmark = pytest.mark.slow

TUNED = sorted(path.stem for path in CONF.glob("weights/tuned_*.yaml"))
ROOT = CONF.parent


def made_table(name: str) -> list[list[str]]:
    """Return the rows of a generated table of study/RESULTS.md, without its header."""
    document = (ROOT / "study/RESULTS.md").read_text()
    table = document.partition(f"<!-- study: {name} -->")[2].partition(f"<!-- end of study: {name} -->")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]


def comment_of(choice: str) -> str:
    text = (CONF / "weights" / f"{choice}.yaml").read_text()
    return " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))


def shipped_arm(choice: str) -> str:
    """Return the name of the confirmed arm with the same settings as the preset."""
    data = choice.removeprefix("tuned_")
    shipped = compose_plain([f"data={data}", f"weights={choice}"])[0]
    same = []
    for part in PARTS:
        path = ROOT / f"study/sweeps/{part.name}.yaml"
        if part.confirms and part.title.lower().startswith(f"{data},") and path.is_file():
            sweep = yaml.safe_load(path.read_text())
            # settings that the sweep gives to all of its arms, apart from those of what is recorded
            recorded = ("evaluations_per_epoch", "train_metrics")
            training = {k: v for k, v in sweep["training"].items() if k not in recorded}
            shared = [f"data={data}", *(f"training.{k}={v}" for k, v in training.items())]
            named = zip(part.arms, sweep["hydra"]["sweeper"]["arms"], strict=True)
            same += [name for name, arm in named if compose_plain([*shared, *arm.split()])[0] == shipped]
    (setting,) = same
    return setting


@pytest.mark.parametrize("choice", TUNED)
def test_tuned_weights_claim_what_the_fairest_comparison_shows(choice):
    """The comment of a preset has the gains of the fair comparison if there is one, else those of the confirmation."""
    arm, comment = shipped_arm(choice), " ".join(comment_of(choice).split())
    fair = [row for row in made_table("fair") if row[1] == choice]
    confirmed = [
        row for row in made_table("confirmation") if row[0].lower() == choice.removeprefix("tuned_") and row[2] == arm
    ]
    assert confirmed
    for _, _, baseline, pairs, speed, spread, f1, test in fair:
        assert f"{baseline}, {pairs} pairs: speed {speed}, steadiness {spread}, dev F1 {f1}, test F1 {test}" in comment
    for row in confirmed:
        shown = [cell in comment for cell in row[3:-1]]
        assert not any(shown) if fair else all(shown)
