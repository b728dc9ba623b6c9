"""The study's tables from archives: they agree with the reports, and study/RESULTS.md is up to date."""

import re
import shutil
from types import SimpleNamespace

import pytest

from joyful.analysis import report
from joyful.results import InputError
from study import reanalysis
from study import report as study_report
from study import tables as study_tables
from study.archive import pack
from tests.support.analysis import NOTE_ARMS, Truth, simulate_sweep

NONE = Truth({"loss": "mse", "weights.encoder_loss_weight": 0.0}, tau=4.4, ratio=0.0)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Create two archives like those of the study's sweeps, and a document with places for the tables."""
    root = tmp_path_factory.mktemp("study")
    (root / "archives").mkdir()
    for name, arms in (("meld", (*NOTE_ARMS, NONE)), ("mosi", NOTE_ARMS)):
        folds = (0, 1) if name == "mosi" else ()
        simulate_sweep(root / name, arms, range(1, 9), epochs=12, folds=folds)
        pack(root / name, root / "archives" / f"{name}.parquet")
    places = ("verdicts", "scores", "gradient_ratio", "sizes", "meld", "mosi")
    (root / "A.md").write_text("\n".join(f"<!-- study: {n} -->old<!-- end of study: {n} -->\nkept {n}" for n in places))
    return root


@pytest.fixture
def study(simulated, tmp_path, monkeypatch):
    (tmp_path / "A.md").write_text((simulated / "A.md").read_text())
    monkeypatch.setattr(study_report, "ARCHIVES", simulated / "archives")
    (tmp_path / "B.md").write_text("before <!-- study: summary --><!-- end of study: summary --> after")
    monkeypatch.setattr(study_report, "DOCUMENT", tmp_path / "A.md")
    monkeypatch.setattr(study_report, "FRONT", (tmp_path / "B.md",))
    (tmp_path / "C.md").write_text("fast\n<!-- study: precision --><!-- end of study: precision -->")
    monkeypatch.setattr(study_report, "PERFORMANCE", tmp_path / "C.md")
    explained = ("explain_gradients", "explain_shares")
    (tmp_path / "D.md").write_text("".join(f"<!-- study: {n} --><!-- end of study: {n} -->" for n in explained))
    monkeypatch.setattr(study_report, "EXPLANATION", tmp_path / "D.md")
    monkeypatch.setattr(study_report, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(reanalysis, "read_registered", list)  # nothing was published of the simulated sweeps
    return simulated, tmp_path


def no_page(findings):
    """Take the place of make_page, because the documents show no page."""


@pytest.fixture(scope="module")
def findings(simulated):
    """The findings of both archives, which take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_report, "ARCHIVES", simulated / "archives")
        patch.setattr(report, "make_page", no_page)
        return study_report.read(simulated / "unpacked")


@pytest.fixture
def analysed(study, findings, monkeypatch):
    """The study, whose archives `study_report.main` does not analyse again."""
    monkeypatch.setattr(study_report, "read", lambda folder: findings)
    return study


def rows(document, name):
    block = re.search(rf"<!-- study: {name} -->(.*?)<!-- end of study: {name} -->", document, re.DOTALL)[1]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines() if line.startswith("|")
    ]


@pytest.mark.slow
@pytest.mark.soak("takes 14 s; make study-report ARGS=--check compares the document")
def test_the_tables_agree_with_the_reports(analysed):
    simulated, place = analysed
    assert study_report.main(["--check"]) == 1
    assert study_report.main(["--out", str(place / "pages")]) == 0
    document = (place / "A.md").read_text()
    assert "old" not in document
    assert "kept mosi" in document
    head, _, *lines = rows(document, "verdicts")
    assert head == ["claim: measure", "claimed", "MELD", "MOSI"]
    cells = {line[0]: line[1:] for line in lines}
    for column, name in enumerate(("meld", "mosi"), start=1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(report, "make_page", no_page)
            verdicts = report.build(simulated / name, study_report.CLAIMS)[0].verdicts
        for verdict in verdicts:
            if verdict.arm == "smoothl1 0.03" and verdict.claim.name in ("convergence_speed", "f1"):
                shown = next(v for k, v in cells.items() if k.startswith(verdict.claim.name.replace("_", " ")))
                assert f"**{verdict.verdict}**" in shown[column]
                assert (
                    f"{verdict.estimate:+.{2 if verdict.claim.unit == 'points' else 1}f}".replace("-", "−")
                    in shown[column]
                )
    assert cells["convergence speed: epochs to the target"][0] == "+15 to 25 %"
    assert cells["training loss: final train NLL"][0] == "−10 to 20 %"
    assert cells["training loss: final train total loss"][1:] == ["**not testable**"] * 2
    arms = rows(document, "meld")
    assert [line[0] for line in arms[2:]] == ["MSE 0.05", "SmoothL1 0.03", "no reconstruction"]
    assert {line[0] for line in rows(document, "gradient_ratio")[2:]} == {"MELD", "MOSI"}
    assert all("pairs" in cell for line in rows(document, "sizes")[2:4] for cell in line[1:])
    for image in re.findall(r"\(images/(.*?)\)", document):
        assert (place / "images" / image).read_bytes().startswith(b"\x89PNG")
    assert (place / "pages/meld/index.html").is_file()
    front = (place / "B.md").read_text()
    head, _, *summary = rows(front, "summary")
    assert head == ["measure", "claimed", "MELD", "MOSI"]
    assert len(summary) == 5
    shown = {line[0].partition(": ")[2]: line[2:] for line in lines}
    for measure, claimed, *summary_cells in summary:
        assert claimed.startswith(("+", "−"))
        for cell, full_cell in zip(summary_cells, shown[measure], strict=True):
            verdict, _, effect = cell.partition(": ")
            assert full_cell.startswith(f"**{verdict}**")
            assert full_cell.endswith(effect)
    assert front.startswith("before ")
    assert front.endswith(" after")
    assert study_report.main(["--check"]) == 0
    study_report.FRONT[0].write_text(front.replace("epochs to the target", "epochs to another target"))
    assert study_report.main(["--check"]) == 1
    assert study_report.main([]) == 0  # a second time changes nothing
    assert (place / "A.md").read_text() == document


@pytest.fixture
def confirmed(study):
    """Add the archive of a confirmation: two settings pass the plan's rule, others are only faster or only steadier."""
    place = study[1]
    base = {"loss": "mse", "weights.encoder_loss_weight": 0.05, "training.moving_average": 0.0}
    quick = Truth(base | {"weights.encoder_loss_weight": 0.3}, tau=2.0, ceiling=0.63, jitter=0.01)
    better = Truth(
        base | {"weights.encoder_loss_weight": 0.3, "training.moving_average": 0.98},
        tau=2.0,
        ceiling=0.63,
        jitter=0.001,
    )
    alone = Truth(base | {"weights.encoder_loss_weight": 0.2}, jitter=0.01)
    steadied = Truth(
        base | {"weights.encoder_loss_weight": 0.2, "training.moving_average": 0.98},
        tau=3.0,
        ceiling=0.63,
        jitter=0.001,
    )
    average = Truth(base | {"training.moving_average": 0.9}, jitter=0.002)
    others = (alone, steadied, quick, better, average)
    archives = place / "archives"
    archives.mkdir()
    simulate_sweep(place / "confirm", (Truth(base, jitter=0.01), *others), range(101, 109), epochs=24)
    pack(place / "confirm", archives / "confirm_meld.parquet")
    with study_report.DOCUMENT.open("a") as document:
        for name in ("confirmation", "confirm_meld"):
            document.write(f"\n<!-- study: {name} -->old<!-- end of study: {name} -->")
    return archives


@pytest.mark.slow
@pytest.mark.soak("takes 5 s; make study-report ARGS=--check compares the document")
def test_a_confirmation_says_which_settings_work(confirmed, monkeypatch):
    monkeypatch.setattr(study_report, "ARCHIVES", confirmed)
    monkeypatch.setattr(report, "make_page", no_page)
    assert study_report.main([]) == 0
    document = study_report.DOCUMENT.read_text()
    lines = rows(document, "confirmation")[2:]
    assert [line[:2] for line in lines] == [["MELD", "101 to 108"]] * 5
    assert [line[2] for line in lines] == list(study_tables.CONFIRMED[1:])
    assert [line[-1] for line in lines] == ["no", "**yes**", "no", "**yes**", "no"]
    assert [line[1] for line in rows(document, "scores")[2:]] == list(study_tables.CONFIRMED)


@pytest.mark.slow
@pytest.mark.soak("takes 8 s; the study is finished")
def test_parts_about_performance_go_to_their_own_document_only(study, monkeypatch):
    simulated, place = study
    archives = place / "archives"
    shutil.copytree(simulated / "archives", archives)
    base = {"loss": "mse", "weights.encoder_loss_weight": 0.05}
    arms = [Truth(base | {"training.precision": name}) for name in ("fp32", "bf16")]
    simulate_sweep(place / "precision", arms, range(1, 7), epochs=12)
    pack(place / "precision", archives / "precision.parquet")
    monkeypatch.setattr(study_report, "ARCHIVES", archives)
    monkeypatch.setattr(report, "make_page", no_page)
    assert study_report.main([]) == 0
    text = (place / "C.md").read_text()
    assert [line[0] for line in rows(text, "precision")[2:]] == ["float32", "bfloat16"]
    assert "../study/images/precision-curves.png" in text
    assert "claimed" not in text  # the note has no claim about bfloat16
    assert text.startswith("fast")
    assert {line[0] for line in rows((place / "A.md").read_text(), "gradient_ratio")[2:]} == {"MELD", "MOSI"}


@pytest.mark.parametrize(
    ("changes", "works"),
    [
        ({}, True),
        ({"speed": (14.9, 5.0, 26.0)}, False),  # below the rule
        ({"spread": (31.0, -0.1, 50.0)}, False),  # the interval holds 0
        ({"f1": (-0.1, -0.3, 0.1)}, True),  # not shown to be lower
        ({"f1": (-0.5, -0.9, -0.1)}, False),
    ],
)
def test_what_counts_as_a_setting_that_works(changes, works):
    values = {"speed": (15.0, 1.0, 30.0), "spread": (30.0, 1.0, 50.0), "f1": (0.0, -0.1, 0.1)} | changes
    verdicts = [SimpleNamespace(estimate=e, low=low, high=high) for e, low, high in values.values()]
    assert study_tables.works_by_plan(*verdicts) is works
    assert not study_tables.works_by_plan(None, *verdicts[1:])


@pytest.mark.slow
@pytest.mark.soak("needs the same archives")
def test_a_document_without_a_place_is_named_and_unchanged(analysed, capsys):
    text = study_report.DOCUMENT.read_text().replace("<!-- study: gradient_ratio -->", "")
    study_report.DOCUMENT.write_text(text)
    assert study_report.main([]) == 2
    assert "expected one pair of <!-- study: gradient_ratio -->" in capsys.readouterr().err
    assert study_report.DOCUMENT.read_text() == text


def test_without_archives_the_error_names_the_command(study, tmp_path, monkeypatch):
    monkeypatch.setattr(study_report, "ARCHIVES", tmp_path)
    with pytest.raises(InputError, match=r"study\.archive pack"):
        study_report.read(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not list(study_report.ARCHIVES.glob("*.parquet")), reason="the study has no archive yet")
@pytest.mark.soak("compares the whole document, as make study-report ARGS=--check does")
def test_the_document_in_the_repository_is_up_to_date(monkeypatch):
    monkeypatch.setattr(report, "make_page", no_page)
    assert study_report.main(["--check"]) == 0
    assert sum(path.stat().st_size for path in study_report.ARCHIVES.iterdir()) < 8_000_000


def test_the_summary_in_chinese_has_no_english_words():
    for document, translated in ((study_report.FRONT[0], False), (study_report.FRONT[1], True)):
        text = document.read_text()
        block = text.partition("<!-- study: summary -->")[2].partition("<!-- end of study: summary -->")[0]
        words = set(re.findall(r"[A-Za-z]{2,}", block)) - {"MELD", "EmoryNLP", "MOSI", "NLL", "dev", "epoch"}
        assert bool(words) != translated, f"{document.name}: {words}"
