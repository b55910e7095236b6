# SPDX-License-Identifier: Apache-2.0
"""The embedded tiny model: the architecture of Qwen3-VL at 1/1400 of its size, trained here on synthetic pictures.

It is a stand-in with which everything round a vision-language model can be run and tested offline. It compares a
rendering with a photo and boxes what differs; it knows nothing of the world and is not a Qwen model.
"""

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
NAME = "embedded tiny model"
