# SPDX-License-Identifier: Apache-2.0
"""Write docs/settings.md: `python tools/settings_page.py`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "settings.md"


def main() -> None:
    """The command."""
    sys.path.insert(0, str(ROOT))
    import phases
    from arguments.page import settings_page
    from utils.atomic import write_text

    write_text(PAGE, settings_page(phases.available()))


if __name__ == "__main__":
    main()
