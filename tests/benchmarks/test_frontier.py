"""The figure of the pruners, from the JSON that `benchmarks.pruners` writes."""

import pytest

from benchmarks import frontier, pruners


@pytest.mark.slow
def test_the_figure_has_every_rule_of_the_report(tmp_path, capsys):
    report, figure = tmp_path / "pruners.json", tmp_path / "pruners.svg"
    places = [str(pruners.ARCHIVES / f"{name}.parquet") for name in frontier.PANELS]
    pruners.main([*places, "--draws", "2", "--json", str(report)])
    frontier.main([str(report), str(figure)])
    assert capsys.readouterr().out.endswith("No rule meets the aim on all data sets.\n")
    text = figure.read_text()
    for name in (*frontier.PANELS.values(), "percentile", "median", "asha", "none", "aim"):
        assert f">{name}<" in text


def test_shares_are_read_by_place_rule_and_quantity():
    name = "curves_meld, asha 3, 2"
    entries = [
        {"name": f"{name}, epochs trained", "value": 9.0, "ratio": 0.34},
        {"name": f"{name}, best ended early", "value": 7, "ratio": 0.07},
        {"name": f"{name}, dev F1 below the draw's best", "value": 0.1, "ratio": 0.001},
    ]
    (row,) = frontier.points({"figures": entries}).to_dict("records")
    assert row == {"place": "curves_meld", "rule": "asha 3, 2", "epochs": 34.0, "lost": pytest.approx(7.0)}
    everywhere = [{**row, "place": place} for place in frontier.PANELS]
    assert frontier.plot(frontier.pd.DataFrame(everywhere)).finding == "A rule meets the aim."
    everywhere[0]["lost"] = 11.0
    assert frontier.plot(frontier.pd.DataFrame(everywhere)).finding.startswith("No rule")
