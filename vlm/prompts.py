# SPDX-License-Identifier: Apache-2.0
"""What a vision-language model is asked.

The wording follows Qwen3-VL's own grounding examples: categories in quotes, "report bbox coordinates in JSON
format like this". Coordinates run from 0 to 1000 over the picture as given.
"""

KINDS = ("blur", "floater", "hole", "needles", "noise")
"""Categories of defects of a splat rendering; `needles` are elongated splats, `hole` is missing geometry."""


def defect_prompt(max_boxes: int, kinds: tuple[str, ...] = KINDS) -> str:
    """The question that goes with two pictures: the rendering first, the photo second.

    Args:
        max_boxes: Most boxes wanted.
        kinds: Names of the defects to look for.
    """
    return (
        "The first image is a rendering of a 3D scene, the second image is the photo of the same view. "
        "Compare them and locate the regions of the first image that look worse than in the second image, "
        f'at most {max_boxes}, belonging to the following categories: "{", ".join(kinds)}". '
        'Report bbox coordinates in JSON format like this: [{"bbox_2d": [x1, y1, x2, y2], "label": "category", '
        '"severity": 1-3}]. Coordinates are 0-1000, relative to the first image. Output [] if there is none.'
    )
