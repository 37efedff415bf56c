"""A stranger's folder is understood, or refused with everything that is wrong with it."""

import itertools
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unet_tutorial._folder import natural_order
from unet_tutorial.datasets import FolderError, from_folder

SIZE = (12, 10)


def gray(seed=0, dtype=np.uint8, below=256, size=SIZE):
    return np.random.default_rng(seed).integers(0, below, size).astype(dtype)


def square(value=255, dtype=np.uint8, size=SIZE):
    mask = np.zeros(size, dtype)
    mask[2:6, 3:7] = value
    return mask


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, pixels, **options)
    else:
        Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """Five gray images with {0, 255} masks."""
    for index in range(5):
        write(tmp_path / f"images/{index}.png", gray(index))
        write(tmp_path / f"masks/{index}.png", square())
    return tmp_path


def read(folder, **options):
    return from_folder(folder / "images", folder / "masks", **options)


def problems(folder, **options):
    with pytest.raises(FolderError) as caught:
        read(folder, **options)
    assert isinstance(caught.value, ValueError)
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def masks_of(folder, mask, suffix=".png"):
    """Replace all masks by one."""
    for old in (folder / "masks").iterdir():
        old.unlink()
    for index in range(5):
        write(folder / f"masks/{index}{suffix}", mask)


# --- what is read ---------------------------------------------------------------------------------


def test_a_plain_folder_is_read_and_one_line_says_how(folder, capsys):
    data = read(folder)
    assert capsys.readouterr().out == (
        "images: 5 images of 12×10; masks are 0 and 255: class 1 where not 0; held out: 4\n"
    )
    assert data.name == "images"
    assert str(folder) not in data.description
    assert data.image_names == ("0", "1", "2", "3", "4")
    assert data.class_names == ("background", "foreground")
    assert data.instances is None
    for index, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        assert image.dtype == np.float32
        assert np.array_equal(np.round(image[0] * 255), gray(index))
        assert np.array_equal(label, square() // 255)


@pytest.mark.parametrize("image_format", [".png", ".tif", ".TIFF", ".jpg", ".JPEG"])
@pytest.mark.parametrize("mask_format", [".png", ".tif"])
def test_formats_need_not_agree(tmp_path, image_format, mask_format):
    for index in range(2):
        image = np.full(SIZE, 40 * (1 + index), np.uint8)
        path = tmp_path / f"images/{index}{image_format}"
        path.parent.mkdir(exist_ok=True)
        if image_format == ".TIFF":
            tifffile.imwrite(path, image)
        else:
            Image.fromarray(image).save(path)
        write(tmp_path / f"masks/{index}{mask_format}", square())
    data = read(tmp_path)
    assert [round(float(image.mean()) * 255) for image in data.images] == [40, 80]
    assert all(label.sum() == 16 for label in data.labels)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a", "a"),
        ("a", "a_mask"),
        ("a", "a-Label"),
        ("a", "a.seg"),
        ("a_image", "a_mask"),
        ("a_img", "a"),
        ("a_raw", "a_gt"),
        ("a_image", "a_image"),
        ("a_image", "a_image_mask"),
        ("a_mask", "a_mask"),
        ("gt", "gt"),
    ],
)
def test_names_match_behind_common_endings(tmp_path, image, mask):
    write(tmp_path / f"images/{image}.png", gray())
    write(tmp_path / f"masks/{mask}.png", square())
    assert len(read(tmp_path, validation=0)) == 1


def test_images_and_masks_may_lie_in_one_folder(tmp_path):
    for index in range(3):
        write(tmp_path / f"{index}.png", gray(index))
        write(tmp_path / f"{index}_mask.png", square())
    data = from_folder(tmp_path, tmp_path)
    assert data.image_names == ("0", "1", "2")
    assert data.labels[0].sum() == 16


def test_other_files_and_subfolders_are_left_alone(folder):
    (folder / "images/notes.txt").write_text("mine")
    (folder / "images/.hidden.png").write_text("mine")
    (folder / "masks/old").mkdir()
    assert len(read(folder)) == 5


def test_images_come_in_natural_order(tmp_path):
    for name in ("slice10", "slice9", "slice1", "Slice2"):
        write(tmp_path / f"images/{name}.png", gray())
        write(tmp_path / f"masks/{name}.png", square())
    assert read(tmp_path).image_names == ("slice1", "Slice2", "slice9", "slice10")


@given(st.lists(st.text(max_size=8), max_size=6))
@settings(deadline=None)
def test_any_names_can_be_put_in_order(names):
    keys = [natural_order(name) for name in sorted(names, key=natural_order)]
    assert all(before <= after for before, after in itertools.pairwise(keys))


@given(st.lists(st.integers(0, 10**6), min_size=1, unique=True))
@settings(deadline=None)
def test_numbers_in_names_count_as_numbers(numbers):
    names = [f"image{number}" for number in numbers]
    assert sorted(names, key=natural_order) == [f"image{number}" for number in sorted(numbers)]


def test_color_has_three_channels_and_transparency_is_dropped(tmp_path):
    color = np.stack([gray(seed) for seed in range(3)], axis=-1)
    for index, pixels in enumerate([color, np.dstack([color, gray(9)])]):
        write(tmp_path / f"images/{index}.png", pixels)
        write(tmp_path / f"masks/{index}.png", square())
    for index in (2, 3):
        pixels = color if index == 2 else color.transpose(2, 0, 1)
        layout = "contig" if index == 2 else "separate"
        write(tmp_path / f"images/{index}.tif", pixels, photometric="rgb", planarconfig=layout)
        write(tmp_path / f"masks/{index}.png", square())
    data = read(tmp_path)
    assert data.in_channels == 3
    for image in data.images:
        assert np.array_equal(np.round(image * 255), color.transpose(2, 0, 1))


def test_a_palette_of_grays_is_gray(tmp_path):
    path = tmp_path / "images/a.png"
    path.parent.mkdir()
    Image.fromarray(gray()).convert("P").save(path)
    write(tmp_path / "masks/a.png", square())
    assert np.array_equal(np.round(read(tmp_path, validation=0).images[0][0] * 255), gray())


def test_the_palette_of_a_mask_is_only_paint(tmp_path):
    write(tmp_path / "images/a.png", gray())
    painted = Image.fromarray(square(1))
    painted.putpalette([0, 0, 0, 200, 10, 30])
    assert painted.mode == "P"
    (tmp_path / "masks").mkdir()
    painted.save(tmp_path / "masks/a.png")
    assert np.array_equal(read(tmp_path, validation=0).labels[0], square(1))


@pytest.mark.parametrize(
    ("largest", "divisor"), [(200, 255), (300, 1023), (4095, 4095), (9000, 16383), (65535, 65535)]
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_all_16_bit_images_are_divided_by_one_depth(tmp_path, capsys, largest, divisor, suffix):
    dim, bright = gray(0, np.uint16, 100), gray(1, np.uint16, 100)
    bright[0, 0] = largest
    for name, pixels in (("dim", dim), ("bright", bright)):
        write(tmp_path / f"images/{name}{suffix}", pixels)
        write(tmp_path / f"masks/{name}.png", square())
    data = read(tmp_path)
    assert np.array_equal(data.images[0][0], bright.astype(np.float32) / np.float32(divisor))
    assert np.array_equal(data.images[1][0], dim.astype(np.float32) / np.float32(divisor))
    assert f"; 16-bit images divided by {divisor};" in capsys.readouterr().out


def test_fractions_stay_as_they_are(tmp_path):
    pixels = np.linspace(0, 1, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
    write(tmp_path / "images/a.tif", pixels)
    write(tmp_path / "masks/a.png", square())
    assert np.array_equal(read(tmp_path, validation=0).images[0][0], pixels)


def test_sizes_may_differ_from_image_to_image(folder, capsys):
    write(folder / "images/5.png", gray(size=(20, 30)))
    write(folder / "masks/5.png", square(size=(20, 30)))
    assert {image.shape for image in read(folder).images} == {(1, 12, 10), (1, 20, 30)}
    assert "6 images of 12×10 to 20×30;" in capsys.readouterr().out


def test_two_stacks_are_read_page_by_page(tmp_path):
    pages = np.stack([gray(index) for index in range(4)])
    tifffile.imwrite(tmp_path / "volume.tif", pages, photometric="minisblack")
    masks = np.stack([square(size=SIZE)] * 4)
    tifffile.imwrite(tmp_path / "labels.tif", masks, photometric="minisblack")
    data = from_folder(tmp_path / "volume.tif", tmp_path / "labels.tif")
    assert data.name == "volume"
    assert data.image_names == ("page 0", "page 1", "page 2", "page 3")
    assert np.array_equal(np.round(data.images[3][0] * 255), pages[3])
    assert data.validation_indices == (3,)


# --- what the numbers mean ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "rule"),
    [
        (square(255), "masks are 0 and 255: class 1 where not 0"),
        (square(65535, np.uint16), "masks are 0 and 65535: class 1 where not 0"),
        (square(1), "masks are class indices 0 to 1"),
        (square(1).astype(bool), "masks are class indices 0 to 1"),
        (np.dstack([square()] * 3), "masks are 0 and 255: class 1 where not 0"),
    ],
    ids=["0 and 255", "16-bit", "0 and 1", "one bit", "gray as RGB"],
)
def test_a_mask_with_one_meaning_is_understood(folder, capsys, mask, rule):
    masks_of(folder, mask)
    data = read(folder)
    assert np.array_equal(data.labels[0], square(1))
    assert rule in capsys.readouterr().out


def test_one_empty_mask_among_others_is_a_picture_of_background(folder):
    write(folder / "masks/0.png", square(0))
    assert read(folder).labels[0].sum() == 0


def test_hundreds_of_numbers_are_instances(folder, capsys):
    mask = np.zeros((40, 40), np.uint16)
    mask[::2, ::2] = np.arange(1, 401).reshape(20, 20)
    for index in range(5):
        write(folder / f"images/{index}.png", gray(size=(40, 40)))
    masks_of(folder, mask)
    data = read(folder)
    assert "instance numbers" in capsys.readouterr().out
    assert data.instances is not None
    assert data.instances[0].dtype == np.int32
    assert np.array_equal(data.instances[0], mask)
    assert np.array_equal(data.labels[0], mask > 0)
    assert data.num_classes == 2


def numbered():
    mask = np.zeros(SIZE, np.uint8)
    mask[1:3, 1:4], mask[5:7, 1:4], mask[1:4, 6:9] = 1, 2, 3
    return mask


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (square(128), "mask_values='binary' if 128 is the foreground"),
        (numbered(), "Each number is one piece, as instances are"),
        (np.arange(120, dtype=np.uint8).reshape(SIZE) % 41, "as classes are"),
    ],
    ids=["0 and 128", "three objects", "0 to 40"],
)
def test_an_ambiguous_mask_is_refused_with_the_option_that_settles_it(folder, mask, said):
    masks_of(folder, mask)
    (problem,) = problems(folder)
    assert "more than one thing" in problem
    assert said in problem
    for option in ("binary", "instances"):
        assert f"'{option}'" in problem
        assert read(folder, mask_values=option).num_classes == 2


def test_each_option_reads_the_same_mask_its_own_way(folder):
    masks_of(folder, numbered())
    binary = read(folder, mask_values="binary")
    classes = read(folder, mask_values="classes")
    instances = read(folder, mask_values="instances")
    assert np.array_equal(binary.labels[0], numbered() > 0)
    assert binary.instances is None
    assert np.array_equal(classes.labels[0], numbered())
    assert classes.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert np.array_equal(instances.labels[0], numbered() > 0)
    assert np.array_equal(instances.instances[0], numbered())


def test_class_names_are_the_users(folder):
    masks_of(folder, numbered())
    names = ["nothing", "axon", "dendrite", "glia", "never seen"]
    data = read(folder, mask_values="classes", class_names=names)
    assert data.class_names == tuple(names)
    assert data.class_fractions[4] == 0
    with pytest.raises(ValueError, match="class_names must name 4 classes"):
        read(folder, mask_values="classes", class_names=["nothing", "axon"])


@given(values=st.sets(st.integers(0, 255), min_size=2, max_size=8))
@settings(deadline=None, max_examples=60)
def test_auto_never_guesses_small_numbers(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("any")
    write(folder / "images/a.png", gray())
    mask = np.array(sorted(values), np.uint8)[np.arange(120).reshape(SIZE) % len(values)]
    write(folder / "masks/a.png", mask)
    if values == {0, 255} or values == {0, 1}:
        assert np.array_equal(read(folder, validation=0).labels[0], mask > 0)
    else:
        assert "mask_values=" in problems(folder, validation=0)[0]


@pytest.mark.parametrize(
    ("mask", "option", "said"),
    [
        (square(0), "auto", "are empty"),
        (square(0), "binary", "are empty"),
        (square(1) + 1, "binary", "no pixel of the masks is 0"),
        (square(1) + 1, "instances", "no pixel of the masks is 0"),
        (square(1) + square(254), "classes", "most of them never used"),
        (square(700, np.uint16), "classes", "most of them never used"),
    ],
)
def test_a_mask_that_the_option_does_not_fit_is_refused(folder, mask, option, said):
    masks_of(folder, mask)
    (problem,) = problems(folder, mask_values=option)
    assert said in problem


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.dstack([square(), square(0), square()]), "a mask in color"),
        (square(0.5, np.float32), "a mask with fractions"),
        (square(np.nan, np.float32), "a mask with fractions"),
        (square(-1, np.int16), "values from -1 to 0"),
        (square(2**31, np.uint32), "values from 0 to 2147483648"),
    ],
    ids=["color", "fractions", "NaN", "negative", "huge"],
)
def test_a_mask_of_no_whole_numbers_is_refused(folder, mask, said):
    options = {"photometric": "rgb"} if mask.ndim == 3 else {}
    (folder / "masks/2.png").unlink()
    write(folder / "masks/2.tif", mask, **options)
    (problem,) = problems(folder)
    assert problem.startswith("2.tif: ")
    assert said in problem


def test_whole_numbers_stored_as_fractions_are_numbers(folder):
    masks_of(folder, square(255, np.float32), ".tif")
    assert read(folder).labels[0].sum() == 16


# --- what is refused ------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_in_one_error(folder):
    images, masks = folder / "images", folder / "masks"
    (masks / "0.png").unlink()
    write(masks / "lonely.png", square())
    (images / "1.png").write_bytes(b"")
    (images / "2.png").write_bytes((images / "2.png").read_bytes()[:40])
    write(masks / "3.png", square(size=(9, 9)))
    write(images / "5.png", np.dstack([gray()] * 3))
    write(masks / "5.png", square())
    (images / "6.tif").write_bytes(b"not a TIFF")
    write(masks / "6.png", square())
    write(images / "7.png", gray())
    write(masks / "7.jpg", square())
    expected = {
        "0.png: no mask of that name",
        "lonely.png: no image of that name",
        "1.png: cannot be read: the file is empty",
        "2.png: cannot be read: ",
        "3.png: 9×9 pixels, its image 3.png has 12×10",
        "5.png: 3 channels, most images have 1",
        "6.tif: cannot be read: ",
        "7.jpg: a JPEG cannot be a mask",
    }
    found = problems(folder)
    assert len(found) == len(expected)
    for beginning in expected:
        assert sum(problem.startswith(beginning) for problem in found) == 1, beginning


def test_two_files_of_one_name_are_refused(folder):
    write(folder / "masks/1_mask.tif", square())
    write(folder / "images/2.tif", gray())
    assert problems(folder) == [
        "1_mask.tif: a second mask for 1, beside 1.png",
        "2.tif: a second image for 2, beside 2.png",
    ]


def test_a_stack_among_single_files_is_refused(folder):
    (folder / "images/1.png").unlink()
    write(folder / "images/1.tif", np.stack([gray()] * 5), photometric="minisblack")
    (problem,) = problems(folder)
    assert problem.startswith("1.tif: a stack of 5 pages")


def test_stacks_of_different_lengths_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([gray()] * 5), photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", np.stack([square()] * 4), photometric="minisblack")
    with pytest.raises(FolderError, match=r"a\.tif has 5 pages, b\.tif has 4"):
        from_folder(tmp_path / "a.tif", tmp_path / "b.tif")


def test_a_volume_over_time_is_refused_with_its_axes(tmp_path):
    volume = np.zeros((2, 3, *SIZE), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", volume, imagej=True, metadata={"axes": "TZYX"})
    tifffile.imwrite(tmp_path / "b.tif", square())
    with pytest.raises(FolderError, match="its axes are TZYX"):
        from_folder(tmp_path / "a.tif", tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (square(2, np.float32), "float32 values from 0.0 to 2.0"),
        (square(np.nan, np.float32), "values from nan to nan"),
        (square(-5, np.int16), "int16 values from -5 to 0"),
        (square(70000, np.int32), "int32 values from 0 to 70000"),
    ],
)
def test_images_of_unknown_range_are_refused(folder, pixels, said):
    (folder / "images/3.png").unlink()
    write(folder / "images/3.tif", pixels)
    (problem,) = problems(folder)
    assert problem.startswith("3.tif: ")
    assert said in problem


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_png_with_16_bits_a_color_is_refused_not_cut_to_8(folder, part, color_type, channels):
    rows = np.full((SIZE[0], SIZE[1] * channels), 300, ">u2")
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", SIZE[1], SIZE[0], 16, color_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        (b"IEND", b""),
    ]
    (folder / part / "3.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    (problem,) = problems(folder)
    assert problem.startswith("3.png: cannot be read: 16 bits a color")


def test_folders_that_are_not_there_are_named(tmp_path):
    found = problems(tmp_path)
    assert [problem.split(": ")[1] for problem in found] == ["no such folder or file"] * 2


def test_an_empty_folder_is_said_to_be_empty(folder):
    for file in (folder / "masks").iterdir():
        file.unlink()
    (problem,) = problems(folder)
    assert "masks: no mask; .png, .tif, .tiff, .jpg, .jpeg are read" in problem


def test_a_folder_beside_a_file_is_refused(folder):
    with pytest.raises(FolderError, match="one is a folder and the other a file"):
        from_folder(folder / "images", folder / "masks/0.png")


def test_an_unknown_option_is_refused(folder):
    with pytest.raises(ValueError, match="mask_values must be one of 'auto', 'binary'"):
        read(folder, mask_values="color")


# --- what is held out -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("validation", "held_out"),
    [(0.2, (4,)), (0.01, (4,)), (0.5, (3, 4)), (0, ()), (["1", "3"], (1, 3)), ("2", (2,))],
)
def test_a_block_at_the_end_or_what_is_named_is_held_out(folder, validation, held_out):
    assert read(folder, validation=validation).validation_indices == held_out


def test_a_long_list_of_held_out_images_is_told_by_its_ends(tmp_path, capsys):
    for index in range(20):
        write(tmp_path / f"images/{index}.png", gray())
        write(tmp_path / f"masks/{index}.png", square())
    read(tmp_path)
    assert capsys.readouterr().out.endswith("held out: 16, …, 19 (4)\n")


def test_images_that_are_held_out_by_name_must_be_there(folder):
    assert problems(folder, validation=["1", "9"]) == [
        "validation names '9', which is no image's name"
    ]


def test_something_must_be_left_to_train_on(tmp_path):
    write(tmp_path / "images/a.png", gray())
    write(tmp_path / "masks/a.png", square())
    assert "leaves none to train on" in problems(tmp_path)[0]
    with pytest.raises(ValueError, match="fraction from 0 to below 1"):
        read(tmp_path, validation=1.0)
