# SPDX-License-Identifier: Apache-2.0
"""The command line: every setting is a flag, every mistake one line that names it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from utils.errors import UserError

from . import store
from .config import Config
from .fields import FULL_RUN
from .flags import flag_parser, not_one_of
from .listing import Setting, all_settings, build, flatten
from .presets import preset

CONTINUED_WITH = frozenset(
    {
        *(
            "data.source",
            "data.data_device",
            "data.cache_gb",
            "data.photo_store",
            "run.model_path",
            "run.threads",
            "run.backend",
            "run.deterministic",
            "run.quiet",
        ),
        *("run.resume", "run.overwrite", "run.checkpoint_every", "run.checkpoint_iterations", "run.disable_viewer"),
    }
)
"""Settings that may change when a run is continued: they do not change its result."""

LENGTHENED_BY = frozenset({"run.iterations", "run.schedule_iterations"})
"""Settings with which a continued run may get longer: the schedule stays, the last phase goes on."""


def parse(argv: Sequence[str], phase_classes: Mapping[str, type]) -> Config:
    """The settings of a command line; schedules come scaled to its --iterations.

    With --resume and a run in --model_path, the settings are that run's.

    Args:
        argv: The arguments, without the program's name.
        phase_classes: Available phases by name, in the order in which they may follow each other.

    Raises:
        UserError: anything that is not known, not supported, out of range or missing.
    """
    settings = all_settings(phase_classes)
    given = vars(flag_parser(phase_classes).parse_args(argv))
    _check_given(given, settings)
    if given.get("run.resume"):
        earlier = _earlier_run(given, phase_classes)
        if earlier is not None:
            return _continued(earlier, given, settings, phase_classes)
    _check_whole(given, phase_classes)
    values = _with_defaults(given, settings)
    flags = tuple(one.flag for one in settings if one.key in given)
    return build(values, phase_classes, flags)


def _with_defaults(given: Mapping[str, Any], settings: Sequence[Setting]) -> dict[str, Any]:
    """What was given as it is; the rest from the preset or the declaration, scaled to the run."""
    defaults = {one.key: one.default for one in settings}
    defaults |= preset(given["optim.preset"]) if given.get("optim.preset") else {}
    total = given.get("run.schedule_iterations") or given.get("run.iterations", defaults["run.iterations"])
    scaled = {one.key: _scale(defaults[one.key], total) for one in settings if one.scaled}
    values = defaults | scaled | dict(given)
    values["data.source"] = values["data.source"].absolute()
    values["run.model_path"] = values["run.model_path"] or Path("output") / str(uuid4())[:10]
    return values


def _scale(default: Any, total: int) -> Any:
    """Iteration counts of a full run for a run of `total`; at least 1, while 0 and None stay."""
    if isinstance(default, tuple):
        return tuple(dict.fromkeys(_scale(one, total) for one in default))
    return max(1, math.floor(default * total / FULL_RUN + 0.5)) if default else default


def _earlier_run(given: Mapping[str, Any], phase_classes: Mapping[str, type]) -> Config | None:
    """Settings of the run that --resume is to continue, or None where there is nothing yet."""
    if given.get("run.overwrite"):
        raise UserError("--resume and --overwrite contradict each other; give one of them")
    if not given.get("run.model_path"):
        raise UserError("--resume: give the folder of the run with --model_path")
    path = given["run.model_path"] / store.FILE_NAME
    return store.load(path, phase_classes) if path.is_file() else None


def _continued(
    earlier: Config, given: Mapping[str, Any], settings: Sequence[Setting], phase_classes: Mapping[str, type]
) -> Config:
    """The earlier run's settings with those given now that do not change its result."""
    values = flatten(earlier, phase_classes)
    changes = dict(given)
    if "data.source" in changes:
        changes["data.source"] = changes["data.source"].absolute()
    if changes.get("run.iterations", 0) > earlier.run.iterations:
        changes.setdefault("run.schedule_iterations", earlier.run.planned)
        values["run.schedule_iterations"] = earlier.run.planned
    elif "run.iterations" in changes and changes["run.iterations"] < earlier.run.iterations:
        raise UserError(
            f"--iterations {changes['run.iterations']}: the run to continue has {earlier.run.iterations}; "
            "it can be lengthened, not shortened"
        )
    else:
        changes.pop("run.iterations", None)
    fixed = [one for one in settings if one.key in changes and one.key not in CONTINUED_WITH | {"run.iterations"}]
    if differing := [one for one in fixed if changes[one.key] != values[one.key]]:
        told = ", ".join(f"{one.flag} {one.shown(changes[one.key])}" for one in differing)
        had = ", ".join(one.shown(values[one.key]) for one in differing)
        raise UserError(
            f"{told}: the run to continue has {had}; "
            "leave the flag out, or start anew with --overwrite or another --model_path"
        )
    values |= {"run.quiet": False, "run.overwrite": False} | changes
    _check_source(values["data.source"])
    return build(values, phase_classes, earlier.given)


def _check_given(given: Mapping[str, Any], settings: Sequence[Setting]) -> None:
    for one in settings:
        if one.key not in given:
            continue
        value = given[one.key]
        if not one.supported and value != one.default:
            raise UserError(f"{one.flag}: not supported yet; leave it out")
        if one.is_range and value[0] > value[1]:
            raise UserError(f"{one.flag} {one.shown(value)}: the first must not be larger than the second")
        for number in value if isinstance(value, tuple) else (value,):
            if one.low is not None and number < one.low:
                raise UserError(f"{one.flag} {one.shown(value)}: must be at least {one.low:g}")
            if one.high is not None and number > one.high:
                raise UserError(f"{one.flag} {one.shown(value)}: must be at most {one.high:g}")


def _check_whole(given: Mapping[str, Any], phase_classes: Mapping[str, type]) -> None:
    """What concerns more than one setting, or the machine."""
    _check_source(given.get("data.source"))
    if given.get("data.resolution") == 0:
        raise UserError("--resolution 0: give -1, a divisor of 1, 2, 4 or 8, or a width in pixels")
    _check_schedule(given)
    if "run.phases" in given:
        _check_phases(given["run.phases"], list(phase_classes))
    init = given.get("run.init", "random")
    if init not in ("random", "sfm") and not Path(init).is_file():
        raise UserError(f"--init {init}: neither random nor sfm nor a file that exists")


def _check_schedule(given: Mapping[str, Any]) -> None:
    planned, iterations = given.get("run.schedule_iterations", 0), given.get("run.iterations", FULL_RUN)
    if planned > iterations:
        raise UserError(f"--schedule_iterations {planned}: must be at most --iterations {iterations}")


def _check_source(source: Path | None) -> None:
    if source is None:
        raise UserError("--source: missing; give the folder of the dataset")
    if not source.is_dir():
        raise UserError(f"--source {source}: no such folder; give the folder of a dataset")


def _check_phases(phases: str, available: Sequence[str]) -> None:
    names = [] if phases == "none" else phases.split(",")
    for name in names:
        if name not in available:
            raise UserError(f"--phases {phases}: {not_one_of(name, [*available, 'none'])}")
    if names != [name for name in available if name in names]:
        raise UserError(f"--phases {phases}: each at most once and in this order: {','.join(available)}")
