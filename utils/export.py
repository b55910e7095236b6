# SPDX-License-Identifier: Apache-2.0
"""`python -m utils.export`: the command of scene/export.py under the name that its users know."""

import sys

from scene.export import main
from utils.command import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
