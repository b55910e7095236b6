# SPDX-License-Identifier: Apache-2.0
"""The page of settings says what the command line does."""

from pathlib import Path

import phases
from arguments.listing import all_settings
from arguments.page import settings_page

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == settings_page(phases.available()), "run: python tools/settings_page.py"


def test_every_flag_is_on_the_page():
    page = settings_page(phases.available())
    assert all(f"`{one.flag}`" in page for one in all_settings(phases.available()))


def test_flags_that_do_not_work_yet_are_listed_as_such():
    _, _, rest = settings_page(phases.available()).partition("## Accepted at their default only")
    assert "`--antialiasing`" in rest and "`--iterations`" not in rest
