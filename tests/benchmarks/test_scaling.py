"""The benchmark of scaling, end to end at the small size."""

import numpy as np
import pytest

from benchmarks import scaling

SMALL = (
    "--size",
    "small",
    "--threads",
    "1",
    "--repeats",
    "2",
    "--multiples",
    "1,3",
    "--lengths",
    "4,20",
    "--total",
    "40",
)


@pytest.mark.slow
@pytest.mark.soak("measures for half a minute; benchmarks are programs of their own")
def test_every_size_is_measured(measured):
    named, document = measured(scaling.main, *SMALL)
    times = [named[f"training by utterance, {k} x the dialogues"] for k in (1, 3)]
    assert [one.to for one in times] == [times[0].name] * 2
    assert times[0].ratio == 1
    expected = max(one.value for one in times) / min(one.value for one in times)
    assert named["dearest / cheapest utterance"].value == pytest.approx(expected)
    assert document["utterances"]["3"] > 2 * document["utterances"]["1"]
    for name in ("peak memory, 3 x the dialogues", "peak memory, 1 x the dialogues"):
        assert 0.05 < named[name].value < 3
    assert "memory of a step by utterance, dialogues of 20" in named


def test_long_dialogues_are_as_long_as_they_say():
    coach = scaling.longer_dialogues("small", 9, 30)
    assert coach.splits["train"].lengths.tolist() == [9, 9, 9]
    assert coach.splits["dev"].lengths.tolist() == [9]
    assert coach.settings.training.batch_size == 3
    assert scaling.longer_dialogues("small", 50, 30).splits["train"].lengths.tolist() == [50]


def test_the_multiples_are_beginnings_of_one_split():
    settings, data = scaling.more_dialogues("small", (1, 2))
    one, two = (data[k].splits["train"] for k in (1, 2))
    assert len(one.lengths) == settings.training.batch_size
    assert len(two.lengths) == 2 * len(one.lengths)
    np.testing.assert_array_equal(one.features["text"], two.features["text"][: len(one.labels)])


def test_figures_by_hand():
    peaks = {50: {"before": 1.0, "gib": 1.5, "utterances": 1024}, 100: {"before": 1.0, "gib": 2.0, "utterances": 1024}}
    shown = {one.name: one for one in scaling.figures({1: 0.002, 2: 0.0022}, peaks, peaks)}
    assert shown["training by utterance, 2 x the dialogues"].value == pytest.approx(2.2)
    assert shown["training by utterance, 2 x the dialogues"].ratio == pytest.approx(1.1)
    assert shown["dearest / cheapest utterance"].ratio == pytest.approx(1.1 / 1.15)
    assert shown["memory of a step by utterance, dialogues of 50"].value == pytest.approx(512)
    assert shown["memory of a step by utterance, dialogues of 100"].ratio == pytest.approx(2)
