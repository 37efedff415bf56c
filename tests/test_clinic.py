"""Every fault of a stranger's folder is named, with its file; a good folder has none to repair."""

import io
import re

import numpy as np
import pytest
from picture_files import write
from PIL import Image

from unet_tutorial.clinic import Finding, check_folder, is_soft

SIZE = (40, 36)


def shades(seed, size=SIZE):
    return np.random.default_rng(seed).integers(20, 90, size).astype(np.uint8)


def disks(seed, size=SIZE):
    """Two disks: (H, W) bool."""
    chance = np.random.default_rng(seed)
    rows, columns = np.indices(size)
    mask = np.zeros(size, bool)
    for _ in range(2):
        row, column = chance.integers(10, size[0] - 10), chance.integers(10, size[1] - 10)
        mask |= np.hypot(rows - row, columns - column) < 5
    return mask


@pytest.fixture
def folder(tmp_path):
    """Ten bright pairs of disks with masks of 0 and 255."""
    for index in range(10):
        mask = disks(index)
        write(tmp_path / f"images/{index}.png", shades(index) + 100 * mask.astype(np.uint8))
        write(tmp_path / f"masks/{index}.png", 255 * mask.astype(np.uint8))
    return tmp_path


def check(folder, **options):
    return check_folder(folder / "images", folder / "masks", **options)


def find(findings, fault):
    (found,) = (one for one in findings if one.fault == fault)
    assert found.detail
    return found


def repairs(findings):
    return [one.fault for one in findings if one.severity == "repair"]


def map_masks(folder, change, only=None):
    for file in sorted((folder / "masks").iterdir()):
        if only is None or file.stem in only:
            write(file, change(np.asarray(Image.open(file))))


def test_a_good_folder_needs_no_repair_and_0_and_255_are_explained(folder):
    findings = check(folder)
    (found,) = findings
    assert (found.severity, found.fault) == ("note", "masks of 0 and 255")
    assert "(mask > 0)" in found.repair


def test_a_finding_reads_as_fault_files_reason_and_repair():
    found = Finding("note", "odd", tuple(f"{k}.png" for k in range(12)), "Why.", "Do this.")
    first, second, third = str(found).splitlines()
    assert first == (
        "NOTE    odd: 0.png, 1.png, 2.png, 3.png, 4.png, 5.png, 6.png, 7.png, … (12 files)"
    )
    assert (second.strip(), third.strip()) == ("Why.", "→ Do this.")


def test_masks_that_look_black_are_no_fault(folder):
    map_masks(folder, lambda mask: mask // 255)
    found = find(check(folder), "masks that look black")
    assert found.severity == "note"
    assert "multiply it by 255" in found.repair


def test_three_classes_that_look_black_are_told_by_their_highest_number(folder):
    map_masks(folder, lambda mask: (mask // 255) * (1 + (np.indices(SIZE)[0] > 20)).astype("u1"))
    found = find(check(folder, mask_values="classes"), "masks that look black")
    assert "0 to 2" in found.detail
    assert "multiply it by 127" in found.repair


def jpeg(mask):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, format="JPEG", quality=75)
    return np.asarray(Image.open(file))


def resized(mask):
    half = Image.fromarray(mask).resize((17, 19), Image.Resampling.BILINEAR)
    return np.asarray(half.resize(mask.shape[::-1], Image.Resampling.BILINEAR))


@pytest.mark.parametrize("smooth", [jpeg, resized])
def test_soft_masks_are_named(folder, smooth):
    map_masks(folder, smooth, only=("3", "7"))
    found = find(check(folder), "soft mask")
    assert (found.severity, found.files) == ("repair", ("3.png", "7.png"))
    assert "mask > 127" in found.repair


def test_numbered_objects_up_to_255_are_not_soft(folder):
    mask = np.kron(np.arange(256).reshape(16, 16), np.ones((3, 3), int)).astype(np.uint8)
    assert not is_soft(mask)
    for index in range(10):
        write(folder / f"images/{index}.png", shades(index, mask.shape))
        write(folder / f"masks/{index}.png", mask)
    assert find(check(folder), "numbered objects").severity == "note"


def test_a_mask_that_is_inverted_among_others_is_named(folder):
    map_masks(folder, lambda mask: 255 - mask, only=("4",))
    found = find(check(folder), "inverted mask")
    assert (found.severity, found.files) == ("repair", ("4.png",))


def test_a_mask_that_is_full_where_its_image_is_bright_is_not_called_inverted(folder):
    full = np.ones(SIZE, bool)
    full[10:20, 10:20] = False
    write(folder / "images/4.png", shades(4) + 100 * full.astype(np.uint8))
    write(folder / "masks/4.png", 255 * full.astype(np.uint8))
    assert repairs(check(folder)) == []


def test_masks_that_all_may_be_inverted_are_a_question(folder):
    map_masks(folder, lambda mask: 255 - mask)
    found = find(check(folder), "masks that may be inverted")
    assert (found.severity, len(found.files)) == ("note", 10)


def test_two_ways_to_write_a_mask_are_found(folder):
    map_masks(folder, lambda mask: mask // 255, only=("1", "2"))
    found = find(check(folder), "two ways to write a mask")
    assert (found.severity, found.files) == ("repair", ("1.png", "2.png"))
    assert found.detail.startswith("2 masks hold 0 and 1, 8 hold 0 and 255")


def test_255_among_class_indices_is_found(folder):
    def ignore_a_corner(mask):
        classes = (mask // 255).astype(np.uint8)
        classes[:2, :2] = 255
        return classes

    map_masks(folder, lambda mask: (mask // 255).astype(np.uint8))
    map_masks(folder, lambda mask: ignore_a_corner(255 * mask), only=("5",))
    found = find(check(folder), "255 among class indices")
    assert (found.severity, found.files) == ("repair", ("5.png",))


def test_files_without_a_partner_sizes_and_broken_files_are_named(folder):
    (folder / "masks/0.png").unlink()
    (folder / "images/1.png").unlink()
    (folder / "images/2.png").write_bytes(b"")
    write(folder / "masks/3.png", 255 * disks(3, (30, 30)).astype(np.uint8))
    Image.fromarray(shades(4)).save(folder / "masks/4.jpg")
    (folder / "masks/4.png").unlink()
    found = {one.fault: one.files for one in check(folder) if one.severity == "repair"}
    assert found == {
        "image without a mask": ("0.png",),
        "mask without an image": ("1.png",),
        "broken file": ("2.png",),
        "mask and image of different size": ("3.png",),
        "JPEG mask": ("4.jpg",),
    }


def test_masks_in_color_and_mixed_images_are_named(folder):
    color = np.zeros((*SIZE, 3), np.uint8)
    color[disks(1)] = (255, 0, 0)
    write(folder / "masks/1.png", color)
    write(folder / "images/2.png", np.dstack([shades(2)] * 3))
    findings = check(folder)
    assert find(findings, "mask in color").files == ("1.png",)
    assert find(findings, "gray and color images mixed").files == ("2.png",)


def test_folders_that_are_missing_or_empty_are_named(folder, tmp_path):
    missing = tmp_path / "nowhere"
    (found,) = check_folder(missing, folder / "masks")
    assert found.fault == "missing folder"
    (tmp_path / "empty").mkdir()
    (found,) = check_folder(folder / "images", tmp_path / "empty")
    assert found.fault == "empty folder"


def test_kinds_of_files_that_may_surprise_are_noted(folder):
    write(folder / "images/0.png", np.dstack([shades(0)] * 3 + [np.full(SIZE, 9, np.uint8)]))
    (folder / "images/1.png").unlink()
    write(folder / "images/1.tif", 40 * shades(1).astype(np.uint16))
    Image.fromarray(255 * disks(2).astype(np.uint8)).convert("P").save(folder / "masks/2.png")
    findings = check(folder)
    assert find(findings, "transparency").files == ("0.png",)
    assert find(findings, "16-bit images").files == ("1.tif",)
    assert find(findings, "palette").files == ("mask 2.png",)


def test_masks_that_are_empty_or_full_are_named(folder):
    map_masks(folder, np.zeros_like, only=("1",))
    map_masks(folder, lambda mask: np.full_like(mask, 255), only=("2",))
    findings = check(folder)
    assert find(findings, "empty mask").files == ("1.png",)
    assert find(findings, "mask without background").files == ("2.png",)
    map_masks(folder, np.zeros_like)
    assert repairs(check(folder)) == ["empty masks"]


def test_a_rare_class_is_told_with_its_share(folder):
    def dot(mask):
        small = np.zeros_like(mask)
        small[20, 10:20] = 255
        return small

    map_masks(folder, dot)
    found = find(check(folder), "rare class")
    assert "0.69% of all pixels" in found.detail
    assert "cross-entropy+dice" in found.repair


def test_classes_on_one_side_only_are_told(folder):
    def stripes(*classes):
        mask = np.zeros(SIZE, np.uint8)
        for k, index in enumerate(classes):
            mask[5 + 8 * k : 9 + 8 * k, 4:30] = index
        return mask

    for index in range(10):
        write(folder / f"masks/{index}.png", stripes(1, 2, 1) if index < 8 else stripes(1, 3, 1))
    findings = check(folder, mask_values="classes")
    only = find(findings, "class only in validation")
    assert (only.severity, only.files) == ("repair", ("8.png", "9.png"))
    assert only.detail.startswith("Class 3 ")
    absent = find(findings, "class absent from validation")
    assert (absent.severity, absent.detail[:7]) == ("note", "Class 2")


def test_images_without_sense_are_named(folder):
    (folder / "images/1.png").unlink()
    values = (shades(1) / 255).astype(np.float32)
    values[3, 3] = np.nan
    write(folder / "images/1.tif", values)
    write(folder / "images/2.png", np.full(SIZE, 7, np.uint8))
    (folder / "images/3.png").unlink()
    write(folder / "images/3.tif", shades(3).astype(np.float32))
    findings = check(folder)
    assert find(findings, "NaN or infinite values").files == ("1.tif",)
    assert find(findings, "image of one value").files == ("2.png",)
    assert find(findings, "unknown range of values").files == ("3.tif",)


def test_twins_are_a_leak_across_the_split_and_a_note_within(folder):
    twin = (folder / "images/0.png").read_bytes()
    mask = (folder / "masks/0.png").read_bytes()
    for name in ("1", "9"):  # 9 is held out
        (folder / f"images/{name}.png").write_bytes(twin)
        (folder / f"masks/{name}.png").write_bytes(mask)
    found = find(check(folder), "same image in training and validation")
    assert (found.severity, found.files) == ("repair", ("0.png = 1.png = 9.png",))
    assert find(check(folder, validation=0), "image there twice").severity == "note"
    map_masks(folder, lambda mask: np.roll(mask, 3), only=("1",))
    assert repairs(check(folder, validation=0)) == ["one image with two masks"]


def test_a_leak_into_a_second_folder_is_found_with_its_place(folder, tmp_path):
    other = tmp_path / "val"
    write(other / "a/x.png", np.asarray(Image.open(folder / "images/2.png")))
    write(other / "b/x.png", np.asarray(Image.open(folder / "masks/2.png")))
    findings = check(folder, validation=(other / "a", other / "b"))
    found = find(findings, "same image in training and validation")
    assert found.files == ("2.png = validation/x.png",)


def test_images_too_small_for_the_depth_and_of_different_size_are_told(folder):
    write(folder / "images/1.png", shades(1, (12, 40)))
    write(folder / "masks/1.png", 255 * disks(1, (40, 40))[14:26].astype(np.uint8))
    findings = check(folder)
    assert find(findings, "image too small").files == ("1.png",)
    assert "12×40 to 40×36" in find(findings, "images of different size").detail
    assert "image too small" not in repairs(check(folder, depth=3))


def test_masks_with_more_than_one_meaning_are_a_question_to_answer(folder):
    def two_objects(mask):
        numbers = np.zeros_like(mask)
        numbers[5:9, 5:9], numbers[20:25, 20:25] = 1, 2
        return numbers

    map_masks(folder, two_objects)
    found = find(check(folder), "masks that can mean more than one thing")
    assert found.severity == "repair"
    assert "mask_values='classes'" in found.detail
    assert repairs(check(folder, mask_values="instances")) == []


def test_class_numbers_with_wide_gaps_are_a_repair(folder):
    map_masks(folder, lambda mask: np.where(mask, 70, 3).astype(np.uint8))
    (found,) = (one for one in check(folder) if one.severity == "repair")
    assert found.fault == "masks whose numbers are no class indices"


def test_repairs_come_first(folder):
    map_masks(folder, np.zeros_like, only=("1",))
    write(folder / "images/2.png", np.full(SIZE, 7, np.uint8))
    severities = [one.severity for one in check(folder)]
    assert severities == sorted(severities, key=["repair", "note"].index)
    assert len(set(severities)) == 2


def test_what_is_said_has_no_path_of_the_machine(folder):
    text = "\n".join(map(str, check(folder)))
    assert not re.search(re.escape(str(folder)), text)
