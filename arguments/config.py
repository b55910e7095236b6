# SPDX-License-Identifier: Apache-2.0
"""The settings, grouped as `--help` shows them.

Iteration counts marked `scaled` are given for a run of 30 000 iterations. Names and defaults follow the
INRIA and FastGS trainers where those have the setting; `docs/deviations.md` tells where and why ours differ.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .fields import setting


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Photos and poses."""

    source: Path | None = setting(
        None,
        "Dataset: a folder with images/ and sparse/0/ of COLMAP, or with a transforms.json.",
        flags=("-s", "--source_path"),
    )
    format: Literal["auto", "colmap", "transforms"] = setting(
        "auto", "Which of a dataset's descriptions is read; auto prefers COLMAP."
    )
    sparse: int | None = setting(None, "Number of the COLMAP model under sparse/; default the largest.", low=0)
    images: str = setting("images", "Sub-folder of the dataset that holds the photos.", flags=("-i",))
    resolution: int = setting(
        -1,
        "1, 2, 4 or 8 divides the size; -1 limits the width to 1600; another number is a width in pixels.",
        flags=("-r",),
        high=1 << 16,
        low=-1,
    )
    eval: bool = setting(True, "Hold every 8th view out of training (the default; --no_eval trains on all).")
    hold_out_first: int = setting(
        0, "Number of the first view held out, by name from 0; another one is another split.", low=0, high=7
    )
    white_background: bool = setting(False, "White instead of black behind the scene.", flags=("-w",))
    random_background: bool = setting(False, "A random background colour at every iteration.")
    masks: Path | None = setting(
        None, "Folder of masks, one per photo; black pixels are ignored. Default masks/ if it is there; none for none."
    )
    invert_masks: bool = setting(False, "White pixels of the masks are ignored instead.")
    alpha: Literal["auto", "mask", "background"] = setting(
        "auto",
        "Transparent pixels are ignored (mask) or trained as background; auto: the latter for Blender's layout only.",
    )
    cache_gb: float = setting(
        4.0, "GB of memory for decoded photos; what does not fit is decoded again when needed.", low=0
    )
    photo_store: Path | None = setting(
        None, "Folder for undistorted photos, outside the dataset; default in ~/.cache; none for none."
    )
    data_device: Literal["cpu", "cuda"] = setting(
        "cpu", "Where decoded photos are kept; on a card they are fetched no more, and take --cache_gb of it."
    )
    depths: str = setting("", "Folder of depth maps.", flags=("-d",), supported=False)
    train_test_exp: bool = setting(False, "Exposure trained on test views.", supported=False)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The run."""

    model_path: Path | None = setting(
        None, "Folder for everything the run writes; default output/<random name>.", flags=("-m",)
    )
    phases: str = setting("main,ambient,vlm", "Comma-separated phases in order, or none for plain FastGS throughout.")
    iterations: int = setting(30_000, "Iterations of the whole run, all phases together.", low=1)
    schedule_iterations: int = setting(
        0, "Iterations that the schedule is laid out for; 0 takes all. The last phase lasts to the end.", low=0
    )
    init: str = setting("random", "Start: random, sfm (points3D), a PLY of points, or any file of Gaussians.")
    num_points: int = setting(100, "Random starting points.", low=1)
    init_extent: float = setting(0.5, "Half side of their box round the focus point, in scene extents.", low=1e-6)
    seeds: Literal["none", "main", "all"] = setting("all", "Phases that may place seeds at photo-consistent depth.")
    seed: int = setting(0, "Seed of everything random.", low=0, high=2**62)
    threads: int = setting(
        0, "Threads of native code and workers; 0 takes all cores. Results do not depend on it.", low=0, high=256
    )
    backend: Literal["auto", "cpu", "cuda"] = setting(
        "auto", "Where to train; auto takes an NVIDIA card where that works, and says why where it does not."
    )
    deterministic: bool = setting(
        False,
        "Stop rather than let an operation of torch sum in an order that varies; ours never do, on a card neither.",
    )
    checkpoint_every: int = setting(1_000, "Iterations between checkpoints; the newest two are kept.", low=1)
    checkpoint_iterations: tuple[int, ...] = setting((), "Iterations whose checkpoint is kept for good.")
    test_iterations: tuple[int, ...] = setting(
        (7_000, 30_000), "Iterations at which held-out views are measured; the last one always is.", scaled=True
    )
    save_iterations: tuple[int, ...] = setting(
        (7_000, 30_000), "Iterations at which the PLY is written; the last one always is.", scaled=True
    )
    resume: bool = setting(False, "Continue the run in --model_path from its last checkpoint.")
    overwrite: bool = setting(False, "Delete the run in --model_path and start over.")
    quiet: bool = setting(False, "Print nothing but errors.")
    start_checkpoint: str = setting("", "Checkpoint of another trainer.", supported=False)
    ip: str = setting("127.0.0.1", "Address of the live viewer.", supported=False)
    port: int = setting(6009, "Port of the live viewer.", supported=False)
    disable_viewer: bool = setting(False, "Accepted; there is no live viewer.")
    websockets: bool = setting(False, "Live viewer of FastGS.", supported=False)
    benchmark_dir: str = setting("", "Benchmark folder of FastGS.", supported=False)
    debug_from: int = setting(-1, "Debugging of the INRIA rasteriser.", supported=False)
    detect_anomaly: bool = setting(False, "Let torch look for the origin of NaN gradients; slow.")

    @property
    def planned(self) -> int:
        """Iterations for which the schedule is laid out; a run that was lengthened has more."""
        return self.schedule_iterations or self.iterations


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """Rendering."""

    sh_degree: int = setting(3, "Highest degree of the spherical harmonics, 0 to 3.", low=0, high=3)
    mult: float = setting(
        0.5, "Compact box: a Gaussian ends where its Mahalanobis distance^2 is mult 2 ln(255 o).", low=1e-3
    )
    mult_final: float | None = setting(
        None,
        "The same from --keep_from on; default in the phases 1, the full footprint, as viewers draw it; with --mult "
        "given, and in plain FastGS, that.",
        low=1e-3,
    )
    antialiasing: bool = setting(False, "Mip-Splatting's filter.", supported=False)
    convert_SHs_python: bool = setting(False, "SH in Python.", supported=False)
    compute_cov3D_python: bool = setting(False, "Covariances in Python.", supported=False)
    debug: bool = setting(False, "Debugging of the INRIA rasteriser.", supported=False)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimisation, densification and pruning."""

    position_lr_init: float = setting(1.6e-4, "Position learning rate at the start, times the scene's size.", low=1e-12)
    position_lr_final: float = setting(1.6e-6, "Position learning rate at the end, times the scene's size.", low=1e-12)
    position_lr_delay_mult: float = setting(0.01, "Without effect in 3DGS.", supported=False)
    position_lr_max_steps: int = setting(30_000, "Iteration at which the final rate is reached.", scaled=True, low=1)
    lowfeature_lr: float = setting(2.5e-3, "Learning rate of the SH constants.", low=0)
    highfeature_lr: float = setting(
        5e-3,
        "Learning rate of the higher SH bands, times 20; unless given, a phase with fewer than 39 training views takes "
        "that part of it.",
        low=0,
    )
    feature_lr: float = setting(2.5e-3, "3DGS's rate; ours are --lowfeature_lr, --highfeature_lr.", supported=False)
    opacity_lr: float = setting(0.025, "Learning rate of the logit opacities.", low=0)
    scaling_lr: float = setting(0.005, "Learning rate of the log scales.", low=0)
    rotation_lr: float = setting(0.001, "Learning rate of the quaternions.", low=0)
    rate_boost: float | None = setting(
        None,
        "Factor on the learning rates at the start of the run, falling to 1 at its end, kept for positions; default in "
        "the phases (30000 / iterations)^(2/3), 4 at most, in plain FastGS 1.",
        low=0.01,
    )
    rate_rest: float = setting(
        0.1,
        "Share of the run, at its end, over which all learning rates but the positions' fall to nothing in the phases; "
        "plain FastGS has it when given.",
        low=0,
        high=1,
    )
    dropout: float | None = setting(
        None,
        "Share of the Gaussians left out of each training view at random from --keep_from on; default in the phases "
        "(16.7 / number of training views)^6, 0.25 at most, in plain FastGS 0.",
        low=0,
        high=0.9,
    )
    lambda_dssim: float = setting(0.2, "Share of D-SSIM in the loss.", low=0, high=1)
    lambda_square: float = setting(
        8.0,
        "Weight of the mean squared error in the phases' loss from --keep_from on; plain FastGS has it when given.",
        low=0,
    )
    opacity_reg: float = setting(
        0.02,
        "Weight of the mean opacity of what is in view (of what unmasked pixels show) in the phases' loss from "
        "--keep_from on; plain FastGS has it when given.",
        low=0,
    )
    optimizer_type: Literal["default", "sparse_adam"] = setting("default", "Adam.", supported=False)
    sh_interval: int = setting(1_000, "Iterations between rises of the active SH degree.", scaled=True, low=1)
    views_per_step: int = setting(
        1, "Views whose mean loss makes a step; several processes (torchrun) share them, so a multiple of those.", low=1
    )
    step_every: int = setting(0, "Optimiser step every so many iterations; 0 follows FastGS's schedule.", low=0)

    densify_from_iter: int = setting(500, "First iteration after which densification may happen.", scaled=True, low=0)
    densify_until_iter: int = setting(15_000, "Iteration at which it ends.", scaled=True, low=0)
    densification_interval: int = setting(500, "Iterations between densifications.", scaled=True, low=1)
    grad_thresh: float = setting(2e-4, "Clone above this mean screen-space gradient (NDC).", low=0)
    grad_abs_thresh: float = setting(1.2e-3, "Split above this mean absolute screen-space gradient (NDC).", low=0)
    densify_grad_threshold: float = setting(2e-4, "3DGS's threshold; FastGS has --grad_thresh.", supported=False)
    percent_dense: float = setting(0.01, "3DGS's size limit; FastGS has --dense.", supported=False)
    dense: float = setting(0.001, "Clone below, split above this scale, in scene extents at full size.", low=0)
    loss_thresh: float = setting(0.1, "A pixel is wrong above this share of its view's largest error.", low=0, high=1)
    grace: int = setting(1_000, "Age in iterations below which a faint Gaussian is not pruned.", scaled=True, low=0)
    score_views: int = setting(10, "Training views that score the Gaussians at each event.", low=1)
    importance: int = setting(5, "Densify only what touches more wrong pixels per view than this.", low=0)
    opacity_reset_interval: int = setting(
        3_000, "Iterations between opacity resets; not scaled, since recovering takes as long in a short run.", low=1
    )
    size_prune_from: int = setting(3_000, "Iteration after which what is too large is pruned.", scaled=True)
    late_prune_interval: int = setting(
        3_000, "Iterations between prunings after densification has ended.", scaled=True, low=1
    )
    cap_max: int = setting(0, "Number of Gaussians to end with; 0 takes keep_share of what has grown.", low=0)
    keep_share: float = setting(
        0.40,
        "Share of what has grown to keep when --cap_max is 0; the phases' own, not plain FastGS's.",
        low=0,
        high=1,
    )
    keep_from: float = setting(0.4, "Share of the run after which the keeping begins, in four steps.", low=0, high=1)
    keep_at: float = setting(0.55, "Share of the run after which it is complete.", low=0, high=1)
    fastgs_faithful: bool = setting(
        False,
        "FastGS as published, its defects and its scene-relative limits included; the rasteriser stays ours, which "
        "ends the compact box pixel by pixel.",
    )
    preset: str = setting("", "FastGS's published per-scene values: base:<scene> or big:<scene>.")

    exposure_lr_init: float = setting(0.01, "Exposure compensation.", supported=False)
    exposure_lr_final: float = setting(0.001, "Exposure compensation.", supported=False)
    exposure_lr_delay_steps: int = setting(0, "Exposure compensation.", supported=False)
    exposure_lr_delay_mult: float = setting(0.0, "Exposure compensation.", supported=False)
    depth_l1_weight_init: float = setting(1.0, "Depth regularisation.", supported=False)
    depth_l1_weight_final: float = setting(0.01, "Depth regularisation.", supported=False)


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Who names the defects in phase 2."""

    detector: Literal["", "qwen", "endpoint", "residual", "replay", "placebo", "none"] = setting(
        "",
        "Default: qwen with --qwen_model_path, endpoint with --vlm_endpoint (or its _model), replay with --vlm_replay, "
        "else residual.",
    )
    qwen_model_path: str = setting("", "Directory of a Qwen3-VL model, or embedded for the tiny model that ships here.")
    vlm_endpoint: str = setting("", "URL of an OpenAI-compatible server, such as http://localhost:8000/v1.")
    vlm_endpoint_model: str = setting("", "Name of the model on that server.")
    vlm_replay: Path | None = setting(None, "A finished run whose recorded answers drive this one.")


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of one run, after the schedules have been scaled to its length."""

    data: DataConfig = field(default_factory=DataConfig)
    run: RunConfig = field(default_factory=RunConfig)
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fields of each available phase, by phase name; scaled like the rest."""
    given: tuple[str, ...] = ()
    """Flags that the user gave; the other values are defaults."""
