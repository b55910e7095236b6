# SPDX-License-Identifier: Apache-2.0
"""docs/refusals.md is what the program says."""

from tests.refusals import PAGE, page


def test_the_page_of_refusals_is_up_to_date():
    assert PAGE.read_text() == page(), "run: python -m tests.refusals"
