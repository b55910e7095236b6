# SPDX-License-Identifier: Apache-2.0
"""Every encoding of a photo ends as the same 8-bit RGB, and masks as ones and zeros."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from scene.photos import Photo, UnusablePhoto, probe, read_mask
from utils.errors import UserError

SHAPE = (24, 16)
"""Width, height."""


@pytest.fixture
def picture() -> np.ndarray:
    """A smooth picture, so that lossy formats come close."""
    x, y = np.meshgrid(np.linspace(0, 1, SHAPE[0]), np.linspace(0, 1, SHAPE[1]))
    return (np.stack([x, y, 0.5 + 0 * x], axis=2) * 200 + 20).astype(np.uint8)


def opened(path, size=SHAPE, **options) -> Photo:
    return probe(path, SHAPE).photo(*size, **options)


def levels(photo: Photo) -> np.ndarray:
    """Image as 0..255, [H, W, 3]."""
    return photo.image().permute(1, 2, 0).numpy() * 255


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.png", {}, 0),
        ("a.bmp", {}, 0),
        ("a.tif", {}, 0),
        ("a.webp", {"lossless": True}, 0),
        ("a.JPG", {"quality": 98, "subsampling": 0, "format": "JPEG"}, 6),
        ("a.jpeg", {"quality": 98, "subsampling": 0, "progressive": True}, 6),
    ],
)
def test_containers_do_not_matter(tmp_path, picture, name, options, tolerance):
    Image.fromarray(picture).save(tmp_path / name, **options)
    photo = opened(tmp_path / name)
    assert photo.image().dtype == torch.float32
    assert photo.image().shape == (3, 16, 24)
    np.testing.assert_allclose(levels(photo), picture, atol=tolerance + 1e-3)
    assert photo.mask() is None


def test_cmyk_is_converted(tmp_path, picture):
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    np.testing.assert_allclose(levels(opened(tmp_path / "a.jpg")), picture, atol=12)


def test_a_palette_is_looked_up(tmp_path):
    flat = np.zeros((16, 24, 3), np.uint8)
    flat[:, 12:] = (10, 200, 30)
    Image.fromarray(flat).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "a.png")
    np.testing.assert_allclose(levels(opened(tmp_path / "a.png")), flat, atol=1e-3)


def test_grey_is_spread_over_the_channels(tmp_path, picture):
    grey = picture[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.testing.assert_allclose(levels(opened(tmp_path / "a.png")), np.repeat(grey[..., None], 3, 2), atol=1e-3)


@pytest.mark.parametrize("end", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_cut(tmp_path, picture, end):
    grey = picture[..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"a.{end}")
    np.testing.assert_allclose(levels(opened(tmp_path / f"a.{end}"))[..., 1], grey, atol=1e-3)


def test_float_pictures_use_zero_to_one(tmp_path, picture):
    grey = picture[..., 0]
    Image.fromarray((grey / 255).astype(np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_allclose(levels(opened(tmp_path / "a.tif"))[..., 2], grey, atol=1e-3)


@pytest.mark.parametrize(("white", "level"), [(False, 0), (True, 255)])
def test_transparency_is_composited_on_the_background_and_masks(tmp_path, picture, white, level):
    alpha = np.full((16, 24, 1), 255, np.uint8)
    alpha[:, :8] = 0
    alpha[:, 8:12] = 51  # one fifth
    Image.fromarray(np.concatenate([picture, alpha], axis=2)).save(tmp_path / "a.png")
    photo = opened(tmp_path / "a.png", white_background=white)
    np.testing.assert_allclose(levels(photo)[:, :8], level, atol=1e-3)
    np.testing.assert_allclose(levels(photo)[:, 8:12], 0.2 * picture[:, 8:12] + 0.8 * level, atol=0.51)
    np.testing.assert_allclose(levels(photo)[:, 12:], picture[:, 12:], atol=1e-3)
    expected = np.zeros((16, 24))
    expected[:, 12:] = 1
    np.testing.assert_array_equal(photo.mask().numpy(), expected)


def test_an_opaque_alpha_channel_is_no_mask(tmp_path, picture):
    Image.fromarray(picture).convert("RGBA").save(tmp_path / "a.png")
    photo = opened(tmp_path / "a.png")
    assert photo.mask() is None
    np.testing.assert_allclose(levels(photo), picture, atol=1e-3)


def test_colours_under_transparent_pixels_do_not_bleed_when_resized(tmp_path):
    rgba = np.zeros((16, 24, 4), np.uint8)
    rgba[:, :12] = (255, 0, 0, 0)  # invisible red
    rgba[:, 12:] = (0, 0, 255, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert levels(opened(tmp_path / "a.png", (12, 8)))[..., 0].max() < 1


def test_a_photo_is_decoded_once_and_kept_as_bytes(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    photo = opened(tmp_path / "a.png")
    first = photo.image()
    (tmp_path / "a.png").unlink()
    assert torch.equal(photo.image(), first)
    assert photo.bytes == 16 * 24 * 3
    photo.release()
    with pytest.raises(UserError, match=r"a\.png"):
        photo.image()


def test_a_constant_photo_stays_constant_at_every_size(tmp_path):
    Image.new("RGB", SHAPE, (10, 20, 30)).save(tmp_path / "a.png")
    small = opened(tmp_path / "a.png").resized(7, 5)
    assert small.image().shape == (3, 5, 7)
    np.testing.assert_allclose(levels(small), np.broadcast_to([10, 20, 30], (5, 7, 3)), atol=1e-3)


def test_a_single_pixel_is_a_photo(tmp_path):
    Image.new("RGB", (1, 1), (51, 0, 255)).save(tmp_path / "a.png")
    image = probe(tmp_path / "a.png", (1, 1)).photo(1, 1).image()
    np.testing.assert_allclose(image.flatten(), [0.2, 0, 1])


def turned_jpeg(path, orientation: int, size) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (200, 10, 10)).save(path, exif=exif)


def test_exif_turns_a_photo_only_when_its_camera_lies_the_other_way(tmp_path):
    turned_jpeg(tmp_path / "turned.jpg", 6, (16, 24))
    assert opened(tmp_path / "turned.jpg").image().shape == (3, 16, 24)
    turned_jpeg(tmp_path / "as_is.jpg", 6, (24, 16))
    assert opened(tmp_path / "as_is.jpg").image().shape == (3, 16, 24)


def test_a_photo_of_another_shape_is_refused_by_name(tmp_path):
    Image.new("RGB", (16, 24)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: the photo is 16x24 but its camera 24x16"):
        probe(tmp_path / "a.png", SHAPE)


@pytest.mark.parametrize("size", [(12, 8), (48, 32), (37, 25)])
def test_resized_exports_keep_their_own_size(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "a.png")
    file = probe(tmp_path / "a.png", SHAPE)
    assert (file.width, file.height) == size


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 30], ids=["empty", "text", "png"]
)
def test_what_is_no_picture_is_said_to_be_none(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnusablePhoto, match=r"no picture|damaged"):
        probe(tmp_path / "a.png", SHAPE)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"format": "PNG"}, {"format": "WEBP"}, {"format": "TIFF"}]
)
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_photo_that_ends_early_is_found_out_before_it_is_used(tmp_path, options, share):
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a", **({"format": "JPEG"} | options))
    data = (tmp_path / "a").read_bytes()
    probe(tmp_path / "a", (300, 200))
    (tmp_path / "a").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnusablePhoto, match=r"damaged|no picture"):
        probe(tmp_path / "a", (300, 200))


def test_a_photo_that_vanishes_in_a_run_is_one_line(tmp_path):
    Image.new("RGB", SHAPE).save(tmp_path / "a.png")
    photo = opened(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"a\.png: the photo is damaged") as caught:
        photo.image()
    assert "\n" not in str(caught.value)


def test_what_follows_the_end_of_a_jpeg_does_no_harm(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + b"maker notes")
    assert opened(tmp_path / "a.jpg").image().shape == (3, 16, 24)


def test_heic_without_its_plug_in_says_what_to_install(tmp_path):
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0heicmif1")
    with pytest.raises(UnusablePhoto, match=r"pillow-heif|damaged"):
        probe(tmp_path / "a.HEIC", SHAPE)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_tiffs_of_any_depth_are_read(tmp_path, picture, kind, channels):
    top = 1.0 if kind == np.float32 else np.iinfo(kind).max
    deep = np.round(picture / 255 * top).astype(kind) if top > 1 else (picture / 255).astype(kind)
    if channels == 4:
        deep = np.dstack([deep, np.full(deep.shape[:2], top, kind)])
    cv2.imwrite(str(tmp_path / "a.tiff"), np.ascontiguousarray(deep[..., [2, 1, 0, 3][:channels]]))
    np.testing.assert_allclose(levels(opened(tmp_path / "a.tiff")), picture, atol=1.01)


def test_sixteen_bit_colours_of_png_are_scaled(tmp_path, picture):
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_allclose(levels(opened(tmp_path / "a.png")), picture, atol=1.01)


def test_transparency_can_be_background_instead_of_a_mask(tmp_path, picture):
    alpha = np.full((16, 24, 1), 255, np.uint8)
    alpha[:, :8] = 0
    Image.fromarray(np.concatenate([picture, alpha], axis=2)).save(tmp_path / "a.png")
    photo = opened(tmp_path / "a.png", alpha_masks=False, white_background=True)
    assert photo.mask() is None
    assert levels(photo)[:, :8].min() == 255


@pytest.mark.parametrize("white", [1, 255])
@pytest.mark.parametrize("mode", ["L", "RGB", "1", "I;16"])
def test_masks_keep_what_is_not_black_in_every_encoding(tmp_path, mode, white):
    array = np.zeros((16, 24), np.uint8)
    array[4:, :] = white
    image = Image.fromarray(array.astype(np.uint16)) if mode == "I;16" else Image.fromarray(array)
    if mode == "1":
        image = Image.fromarray(array > 0)
    (image.convert("RGB") if mode == "RGB" else image).save(tmp_path / "m.png")
    kept = read_mask(tmp_path / "m.png", 24, 16)
    np.testing.assert_array_equal(kept, array > 0)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", 24, 16, invert=True), array == 0)


def test_a_mask_file_and_transparency_both_count(tmp_path, picture):
    alpha = np.full((16, 24, 1), 255, np.uint8)
    alpha[:, :8] = 0
    Image.fromarray(np.concatenate([picture, alpha], axis=2)).save(tmp_path / "a.png")
    mask = np.zeros((16, 24), np.uint8)
    mask[:, :16] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    kept = opened(tmp_path / "a.png", mask=tmp_path / "m.png").mask()
    assert kept.sum() == 16 * 8
    assert kept[:, 8:16].min() == 1


def test_a_damaged_mask_is_one_line(tmp_path):
    (tmp_path / "m.png").write_bytes(b"black")
    with pytest.raises(UserError, match=r"m\.png: the mask cannot be read"):
        read_mask(tmp_path / "m.png", 4, 4)


def test_a_photo_in_memory_is_resized_with_its_mask():
    rgb = np.zeros((16, 24, 3), np.uint8)
    kept = np.zeros((16, 24), bool)
    kept[:, 12:] = True
    small = Photo.in_memory(rgb, kept).resized(12, 8)
    assert small.mask().shape == (8, 12)
    assert small.mask().sum() == 8 * 6


def test_all_encodings_of_one_capture_show_the_same_place(shared_scenes):
    """Sixteen encodings of similar views: none is dark, inverted or washed out."""
    folder = shared_scenes / "robust" / "mixed_formats" / "images"
    for path in sorted(folder.iterdir()):
        image = probe(path, (400, 300)).photo(200, 150).image()
        assert 0.3 < image.mean() < 0.65, path.name
        assert image.std() > 0.1, path.name
