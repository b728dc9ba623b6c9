"""What a report finds, without its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from joyful.analysis import report
from joyful.analysis.findings import Findings


def findings_of(folder: Path, *arguments: Any, **options: Any) -> Findings:
    """Return what `joyful.analysis.report.build` finds, without the time that its page takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "make_page", lambda findings: None)
        return report.build(folder, *arguments, **options)[0]
