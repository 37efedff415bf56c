"""A run folder is whole or not there, goes on as what it was, and predicts as it was trained."""

import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from picture_files import write
from PIL import Image

from unet_tutorial import _own_images, profiles, runs
from unet_tutorial._files import write_whole
from unet_tutorial._own_images import Folders, beside, decide, find_folders, read_own
from unet_tutorial.datasets import FolderError, SegmentationData, from_folder
from unet_tutorial.inference import predict
from unet_tutorial.metrics import dice
from unet_tutorial.runs import (
    Run,
    RunError,
    choose_settings,
    overlay,
    palette_image,
    predict_files,
    train_run,
)

SIZE = (40, 48)


def pair(seed, size=SIZE, dtype=np.uint8, bright=150):
    """A gray image with a bright disk, and the disk."""
    chance = np.random.default_rng(seed)
    rows, columns = np.indices(size)
    row, column = chance.integers(12, size[0] - 12), chance.integers(12, size[1] - 12)
    disk = np.hypot(rows - row, columns - column) < 8
    return (chance.integers(10, 60, size) + bright * disk).astype(dtype), disk


def fill(folder, number, images="images", masks="masks", start=0, **options):
    for index in range(start, start + number):
        image, disk = pair(index, **options)
        suffix = ".png" if image.dtype == np.uint8 else ".tif"
        write(folder / f"{images}/{index}{suffix}", image)
        write(folder / f"{masks}/{index}.png", 255 * disk.astype(np.uint8))
    return Folders(folder / images, folder / masks)


def quiet(text):
    pass


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Two channels instead of sixteen: what is tested here is not how much is learned."""
    chosen = choose_settings

    def small(data, **options):
        network, config = chosen(data, **options)
        return {**network, "base_channels": 2}, config

    monkeypatch.setattr(runs, "choose_settings", small)


@pytest.fixture
def trained(tmp_path):
    folders = fill(tmp_path / "data", 6)
    return train_run(folders, tmp_path / "run", steps=4, device="cpu", report=quiet)


# --- where the images are -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("training", "validation", "images", "masks"),
    [
        ("train", "val", "image", "label"),
        ("Training", "validation", "Images", "Masks"),
        ("train", "valid", "imgs", "annotations"),
    ],
)
def test_the_usual_layouts_are_found(tmp_path, training, validation, images, masks):
    for part in (training, validation):
        for kind in (images, masks):
            (tmp_path / part / kind).mkdir(parents=True)
    found = find_folders(tmp_path)
    assert found.images == tmp_path / training / images
    assert found.masks == tmp_path / training / masks
    assert found.validation.images == tmp_path / validation / images


def test_without_a_folder_for_validation_a_fifth_is_held_out(tmp_path):
    fill(tmp_path, 1)
    assert find_folders(tmp_path) == Folders(tmp_path / "images", tmp_path / "masks", 0.2)


def test_a_folder_without_known_names_is_refused_with_what_was_looked_for(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(FolderError, match=r"looked for one of images, image, .* Name both folders"):
        find_folders(tmp_path)
    with pytest.raises(FolderError, match="no such folder"):
        find_folders(tmp_path / "nowhere")


def test_validation_beside_is_found_by_the_same_names_first(tmp_path):
    for part in ("train/scans", "train/drawn", "held/scans", "held/drawn", "held/images"):
        (tmp_path / part).mkdir(parents=True)
    found = beside(tmp_path / "held", tmp_path / "train/scans", tmp_path / "train/drawn")
    assert found == Folders(tmp_path / "held/scans", tmp_path / "held/drawn", 0.0)
    both = tmp_path / "train"
    assert beside(tmp_path / "held", both, both).images == tmp_path / "held"
    with pytest.raises(FolderError, match="looked for scans/ and drawn/ as beside it"):
        beside(tmp_path / "train/scans", tmp_path / "train/scans", tmp_path / "train/drawn")


def test_both_sets_get_one_scale_one_meaning_and_names_that_differ(tmp_path):
    dim = fill(tmp_path / "train", 3, dtype=np.uint16, bright=150)
    bright = fill(tmp_path / "val", 2, dtype=np.uint16, bright=3000)
    own = read_own(Folders(dim.images, dim.masks, bright))
    assert own.full_scale == 4095
    assert own.data.image_names == ("0", "1", "2", "validation/0", "validation/1")
    assert own.data.validation_indices == (3, 4)
    assert own.data.images[0].max() * 4095 == tifffile.imread(dim.images / "0.tif").max()


def test_what_is_wrong_in_both_sets_is_in_one_error(tmp_path):
    first, second = fill(tmp_path / "train", 3), fill(tmp_path / "val", 2)
    (first.masks / "0.png").unlink()
    (second.images / "1.png").unlink()
    with pytest.raises(FolderError) as caught:
        read_own(Folders(first.images, first.masks, second))
    assert [problem.split(" of that name")[0] for problem in caught.value.problems] == [
        "0.png: no mask",
        "validation: 1.png: no image",
    ]


def test_the_set_is_what_from_folder_reads(tmp_path, capsys):
    folders = fill(tmp_path, 5)
    ours, theirs = read_own(folders).data, from_folder(folders.images, folders.masks)
    assert ours.validation_indices == theirs.validation_indices
    assert ours.class_names == theirs.class_names
    for field in ("images", "labels"):
        for a, b in zip(getattr(ours, field), getattr(theirs, field), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("numbers", "meaning"),
    [
        ([0, 255], "binary"),
        ([0, 1], "classes"),
        ([0, 7], "binary"),
        (list(range(12)), "instances"),
        ([0, 1, 0, 2, 0, 1, 0, 2], "classes"),
        ([0, 1, 2], "auto"),
        ([0, 1, 0, 5, 0, 1, 0, 5], "auto"),  # classes with gaps: nobody knows
        ([3, 4], "auto"),
    ],
)
def test_masks_are_decided_only_where_there_is_no_doubt(numbers, meaning):
    assert decide([np.array([numbers])]) == meaning


def test_what_cannot_be_held_out_is_refused(tmp_path):
    folders = fill(tmp_path, 1)
    with pytest.raises(FolderError, match="holding out 1 leaves none to train on"):
        read_own(folders)
    with pytest.raises(ValueError, match=r"fraction from 0 to below 1, got 1\.5"):
        read_own(Folders(folders.images, folders.masks, 1.5))


def test_too_few_names_of_classes_are_refused(tmp_path):
    folders = fill(tmp_path, 3)
    with pytest.raises(ValueError, match=r"name 2 classes, the background first.*'cell'"):
        read_own(folders, class_names=["cell"])
    assert read_own(folders, class_names=["ground", "cell"]).data.class_names == ("ground", "cell")


# --- settings -----------------------------------------------------------------------------------


def data_of(*sizes, share=0.3):
    labels = tuple(
        (np.random.default_rng(0).random(size) < share).astype(np.uint8) for size in sizes
    )
    return SegmentationData(
        name="some",
        description="",
        images=tuple(np.zeros((1, *size), np.float32) for size in sizes),
        labels=labels,
        class_names=("background", "foreground"),
        validation_indices=(),
        image_names=tuple(map(str, range(len(sizes)))),
    )


@pytest.mark.parametrize(
    ("sizes", "depth", "crop"),
    [
        ([(256, 256)], 4, 128),
        ([(512, 100), (300, 300)], 4, 96),
        ([(33, 64)], 4, 32),
        ([(20, 64)], 3, 16),
        ([(4, 4)], 1, 4),
    ],
)
def test_crop_and_depth_fit_the_smallest_image(sizes, depth, crop):
    options, config = choose_settings(data_of(*sizes), device=torch.device("cpu"))
    assert (options["depth"], config.crop_size) == (depth, crop)
    assert crop % 2**depth == 0


@pytest.mark.parametrize(("precision", "base"), [("bfloat16", 16), ("float32", 8)])
def test_a_cpu_gets_the_width_that_it_trains_in_three_minutes(monkeypatch, precision, base):
    monkeypatch.setattr(profiles, "choose_precision", lambda device: precision)
    options, config = choose_settings(data_of((256, 256)), device=torch.device("cpu"))
    assert options["base_channels"] == base
    assert config.learning_rate * base == pytest.approx(0.048)  # the narrower, the larger steps


def test_a_gpu_gets_the_paper_s_width_and_larger_crops():
    options, config = choose_settings(data_of((512, 512)), device=torch.device("cuda"))
    assert (options["base_channels"], config.crop_size, config.device) == (64, 256, "cuda")


def test_a_rare_class_brings_dice_into_the_loss():
    cpu = torch.device("cpu")
    assert choose_settings(data_of((64, 64), share=0.3), device=cpu)[1].loss == "cross-entropy"
    rare = choose_settings(data_of((64, 64), share=0.02), device=cpu)[1]
    assert rare.loss == "cross-entropy+dice"


def test_an_image_too_small_for_any_network_is_refused():
    with pytest.raises(ValueError, match="smallest image has a side of 3 pixels"):
        choose_settings(data_of((3, 90)))


# --- training -----------------------------------------------------------------------------------


def test_a_run_holds_all_that_using_it_needs(trained):
    files = sorted(path.name for path in trained.folder.iterdir())
    assert files == ["model.safetensors", "report.html", "run.json"]
    about = json.loads((trained.folder / "run.json").read_text(encoding="utf-8"))
    assert about["status"] == "finished"
    assert about["steps_done"] == len(about["curves"]["loss"]) == 4
    assert about["data"]["held_out"] == ["5"]
    assert about["scores"]["dice"].keys() == {"foreground"}
    each = [np.mean(list(one["dice"].values())) for one in about["images"]]
    assert about["scores"]["mean_dice"] == pytest.approx(np.mean(each))
    assert f"{np.mean(each):.3f}" in (trained.folder / "report.html").read_text(encoding="utf-8")
    again = Run.load(trained.folder)
    assert again.class_names == ("background", "foreground")
    image = np.random.default_rng(0).random((40, 48), np.float32)
    assert np.array_equal(predict(again.model, image), predict(trained.model, image))


def test_the_same_seed_gives_the_same_weights_another_seed_others(trained, tmp_path):
    folders = Folders(tmp_path / "data/images", tmp_path / "data/masks")
    bytes_of = [(trained.folder / "model.safetensors").read_bytes()]
    for seed in (0, 1):
        run = train_run(
            folders, tmp_path / f"seed{seed}", steps=4, seed=seed, device="cpu", report=quiet
        )
        bytes_of.append((run.folder / "model.safetensors").read_bytes())
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]


def test_a_finished_run_is_not_written_over(trained, tmp_path):
    before = (trained.folder / "run.json").read_bytes()
    folders = Folders(tmp_path / "data/images", tmp_path / "data/masks")
    with pytest.raises(RunError, match="a finished run, which is not written over"):
        train_run(folders, trained.folder, report=quiet)
    assert (trained.folder / "run.json").read_bytes() == before


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    folders = fill(tmp_path / "data", 3)
    with pytest.raises(RunError, match="something else already"):
        train_run(folders, tmp_path / "data", report=quiet)
    (tmp_path / "empty").mkdir()
    run = train_run(folders, tmp_path / "empty", steps=1, device="cpu", report=quiet)
    assert run.about["status"] == "finished"


def interrupt_at(step):
    """Press Ctrl-C when `fit` validates for the first time after so many steps."""
    from unet_tutorial import training

    known = training.validate

    def validate(model, data, now):
        if now >= step:
            raise KeyboardInterrupt
        return known(model, data, now)

    return validate


def test_ctrl_c_keeps_what_is_there_and_the_same_call_goes_on(tmp_path, monkeypatch):
    folders = fill(tmp_path / "data", 6)
    said = []
    with monkeypatch.context() as patch:
        patch.setattr("unet_tutorial.training.validate", interrupt_at(4))
        run = train_run(folders, tmp_path / "run", steps=10, device="cpu", report=said.append)
    assert run.about["status"] == "interrupted"
    assert run.about["steps_done"] == 4
    assert any(line.startswith("stopped after 4 of 10 steps; the same command") for line in said)
    assert Run.load(tmp_path / "run").about["status"] == "interrupted"
    with pytest.raises(
        RunError, match=r"other settings \(steps 10 → 12, validate_every 2 → 2|steps"
    ):
        train_run(folders, tmp_path / "run", steps=12, device="cpu", report=quiet)
    run = train_run(folders, tmp_path / "run", steps=10, device="cpu", report=said.append)
    assert any("an unfinished training of these images; it goes on" in line for line in said)
    assert run.about["status"] == "finished"
    assert run.about["steps_done"] == 10
    straight = train_run(folders, tmp_path / "other", steps=10, device="cpu", report=quiet)
    ours, theirs = ((one.folder / "model.safetensors").read_bytes() for one in (run, straight))
    assert ours == theirs
    assert not (tmp_path / "run/checkpoint").exists()


def test_other_images_do_not_go_on_with_a_run(tmp_path, monkeypatch):
    folders = fill(tmp_path / "data", 6)
    with monkeypatch.context() as patch:
        patch.setattr("unet_tutorial.training.validate", interrupt_at(2))
        train_run(folders, tmp_path / "run", steps=10, device="cpu", report=quiet)
    write(folders.images / "0.png", pair(99)[0])
    with pytest.raises(RunError, match=r"other settings \(the images\)"):
        train_run(folders, tmp_path / "run", steps=10, device="cpu", report=quiet)


def test_killed_before_the_first_network_a_run_says_how_to_go_on(tmp_path, monkeypatch):
    folders = fill(tmp_path / "data", 4)

    def killed(*given, **options):
        raise SystemError("as if the power had gone")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "fit", killed)
        with pytest.raises(SystemError):
            train_run(folders, tmp_path / "run", steps=2, device="cpu", report=quiet)
    with pytest.raises(RunError, match=r"has not ended and has left no model\.safetensors yet"):
        Run.load(tmp_path / "run")
    run = train_run(folders, tmp_path / "run", steps=2, device="cpu", report=quiet)
    assert run.about["status"] == "finished"


def test_half_a_file_never_has_the_name_of_a_whole_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(half):
        half.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert path.read_text() == "old"


def test_without_images_held_out_nothing_is_claimed(tmp_path):
    folders = fill(tmp_path / "data", 2)
    said = []
    run = train_run(
        Folders(folders.images, folders.masks, 0.0),
        tmp_path / "run",
        steps=1,
        device="cpu",
        report=said.append,
    )
    assert run.about["scores"] == {}
    assert "no image was held out: nobody knows how good it is" in said
    assert "nothing is known" in (run.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "not what unet-tutorial wrote"),
        ("[]", "not what unet-tutorial wrote"),
        ('{"format": 99, "version": "9.9"}', "format 99, this version reads 1; use .* 9.9"),
    ],
)
def test_a_run_file_that_cannot_be_read_is_said_to_be_so(tmp_path, content, said):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=said):
        Run.load(tmp_path)


def test_what_is_no_run_and_broken_weights_are_refused(trained, tmp_path):
    with pytest.raises(RunError, match=r"no run folder, it has no run\.json"):
        Run.load(tmp_path)
    (trained.folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(RunError, match="not the weights of this network"):
        Run.load(trained.folder)


# --- the report ---------------------------------------------------------------------------------


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_the_report_needs_nothing_else_and_reads_without_pictures(trained):
    text = (trained.folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    names = [tag for tag, _ in page.tags]
    assert "script" not in names
    assert "link" not in names
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 4  # one held-out image: itself, mask, network, errors
    assert all(one["src"].startswith("data:image/png;base64,") for one in pictures)
    assert all(len(one["alt"]) > 5 for one in pictures)
    (drawing,) = (attributes for tag, attributes in page.tags if tag == "svg")
    assert drawing["aria-label"].startswith("Training loss over 4 steps")
    shown = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert not re.search(r"https?://", shown)
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text
    score = trained.about["images"][0]["dice"]["foreground"]
    assert f"{score:.3f}" in text


def test_names_from_outside_stay_text_in_the_report(tmp_path):
    folders = fill(tmp_path / "data", 4)
    for kind in (folders.images, folders.masks):
        os.rename(kind / "3.png", kind / "9<b>&.png")
    run = train_run(
        folders, tmp_path / "run", class_names=["a", "<i>x"], steps=1, device="cpu", report=quiet
    )
    text = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "9&lt;b&gt;&amp;" in text
    assert "<b>" not in text
    assert "<i>" not in text


def test_the_worst_images_come_first(tmp_path):
    folders = fill(tmp_path / "data", 10)
    run = train_run(
        Folders(folders.images, folders.masks, 0.6),
        tmp_path / "run",
        steps=3,
        device="cpu",
        report=quiet,
    )
    text = (run.folder / "report.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr><td>(\d)</td><td>([\d.]+)</td>", text)
    assert len(rows) == 6
    assert [float(value) for _, value in rows] == sorted(float(value) for _, value in rows)
    assert text.count("<figcaption>") == 4


# --- prediction ---------------------------------------------------------------------------------


def test_masks_have_class_indices_that_can_be_seen_and_are_read_again(trained, tmp_path):
    image, _ = pair(50, (51, 77))
    write(tmp_path / "new/a.png", image)
    assert predict_files(trained, [tmp_path / "new/a.png"], tmp_path / "out", report=quiet) == []
    expected = predict(trained.model, image[None]).argmax(0)
    with Image.open(tmp_path / "out/a.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), expected)
        assert np.array_equal(np.asarray(picture.convert("L")), 255 * expected)
    with Image.open(tmp_path / "out/a_overlay.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (77, 51))


def test_colors_of_classes_differ_and_the_second_of_two_is_white():
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colors = np.asarray(palette_image(mask, 12).convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colors, axis=0)) == 12
    assert np.array_equal(np.asarray(palette_image(mask, 12)), mask)
    one = np.array([[0, 1]], np.uint8)
    assert palette_image(one, 2).convert("RGB").getpixel((1, 0)) == (255, 255, 255)
    assert palette_image(one, 3).convert("RGB").getpixel((1, 0)) != (255, 255, 255)


def test_an_overlay_tints_the_class_and_leaves_the_rest():
    image = np.full((1, 12, 12), 0.5, np.float32)
    image[0, 0, 0] = 0
    mask = np.zeros((12, 12), int)
    mask[3:9, 3:9] = 1
    picture = overlay(image, mask).astype(int)
    assert (picture[0, 11] == picture[0, 11, 0]).all()  # gray
    assert picture[5, 5, 0] > picture[5, 5, 2]  # orange
    assert abs(picture[3, 3] - (230, 159, 0)).max() <= 1  # its rim in full


def test_files_folders_and_patterns_are_taken_each_once(trained, tmp_path, monkeypatch):
    for name in ("a1", "a2", "b"):
        write(tmp_path / f"new/{name}.png", pair(1)[0])
    (tmp_path / "new/notes.txt").write_text("no image")
    given = [tmp_path / "new", tmp_path / "new/b.png", str(tmp_path / "new/a*.png")]
    said = []
    assert predict_files(trained, given, tmp_path / "out", report=said.append) == []
    assert [line.split(":")[0] for line in said] == ["[1/3] a1.png", "[2/3] a2.png", "[3/3] b.png"]
    assert len(list((tmp_path / "out").iterdir())) == 6
    monkeypatch.chdir(tmp_path)
    assert predict_files(trained, ["new/a?.png"], "out2", report=quiet) == []
    assert len(list((tmp_path / "out2").iterdir())) == 4


def test_bad_files_are_named_and_the_others_done(trained, tmp_path):
    new = tmp_path / "new"
    write(new / "good.png", pair(1)[0])
    write(new / "color.png", np.dstack([pair(1)[0], pair(2)[0], pair(3)[0]]))
    write(new / "long.tif", pair(1, dtype=np.uint16)[0])
    write(new / "range.tif", pair(1)[0].astype(np.float32))
    (new / "broken.png").write_bytes(b"nothing")
    write(new / "again/good.png", pair(2)[0])
    (new / "text.txt").write_text("")
    (new / "none").mkdir()
    given = [
        *sorted(new.glob("*.*")),
        new / "again/good.png",
        new / "none",
        "nowhere/*.png",
        "x.png",
    ]
    said = []
    problems = predict_files(trained, given, tmp_path / "out", report=said.append)
    assert [line.split("] ")[1].split(":")[0] for line in said] == ["good.png"]
    for file, told in {
        "color.png": "3 channels, the network was trained on images with 1",
        "long.tif": "uint16 values, the network was trained on 8-bit images",
        "range.tif": "float32 values from",
        "broken.png": "cannot be read",
        "again/good.png": "its result would have the name of",
        "text.txt": "expected one of .png",
        "none": "no image; .png",
        "*.png": "no such file",
        "x.png": "no such file",
    }.items():
        assert any(Path(p.split(": ")[0]).match(file) and told in p for p in problems), file
    assert len(problems) == 9


def test_results_are_not_written_over_unless_asked(trained, tmp_path):
    write(tmp_path / "a.png", pair(1)[0])
    out = tmp_path / "out"
    predict_files(trained, [tmp_path / "a.png"], out, report=quiet)
    (out / "a.png").write_bytes(b"precious")
    with pytest.raises(RunError, match=r"results are there already \(a\.png\).*--overwrite"):
        predict_files(trained, [tmp_path / "a.png"], out, report=quiet)
    assert (out / "a.png").read_bytes() == b"precious"
    predict_files(trained, [tmp_path / "a.png"], out, overwrite=True, report=quiet)
    assert (out / "a.png").read_bytes() != b"precious"


def test_images_are_never_replaced_by_their_masks(trained, tmp_path):
    write(tmp_path / "a.png", pair(1)[0])
    before = (tmp_path / "a.png").read_bytes()
    (problem,) = predict_files(
        trained, [tmp_path / "a.png"], tmp_path, overwrite=True, report=quiet
    )
    assert "would replace an image" in problem
    assert (tmp_path / "a.png").read_bytes() == before


def test_nothing_to_do_is_an_error(trained, tmp_path):
    with pytest.raises(RunError, match="no image was given"):
        predict_files(trained, [], tmp_path / "out", report=quiet)


def test_a_stack_gives_a_mask_for_every_page(trained, tmp_path):
    stack = np.stack([pair(k)[0] for k in range(3)])
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="minisblack")
    assert predict_files(trained, [tmp_path / "s.tif"], tmp_path / "out", report=quiet) == []
    for page in range(3):
        with Image.open(tmp_path / f"out/s-00{page}.png") as picture:
            assert np.array_equal(
                np.asarray(picture), predict(trained.model, stack[page]).argmax(0)
            )


def test_new_images_are_scaled_as_those_of_the_training(tmp_path):
    folders = fill(tmp_path / "data", 3, dtype=np.uint16, bright=2000)
    run = train_run(folders, tmp_path / "run", steps=1, device="cpu", report=quiet)
    assert run.full_scale == 4095
    dim, _ = pair(9, dtype=np.uint16, bright=100)  # alone it would be divided by 255
    write(tmp_path / "dim.tif", dim)
    assert np.array_equal(
        Run.load(run.folder).read(tmp_path / "dim.tif")[0, 0], dim / np.float32(4095)
    )


def test_brightness_is_evened_out_if_asked_and_in_new_images_too(tmp_path):
    fill(tmp_path / "data", 3)
    folders = fill(tmp_path / "data", 3, start=3, bright=10)
    run = train_run(folders, tmp_path / "run", even=True, steps=1, device="cpu", report=quiet)
    assert "each image divided by its own brightness" in run.about["data"]["rules"]
    image, _ = pair(9)
    write(tmp_path / "bright.png", image)
    write(tmp_path / "dim.tif", (image / 255 / 4).astype(np.float32))
    again = Run.load(run.folder)
    bright, dim = again.read(tmp_path / "bright.png"), again.read(tmp_path / "dim.tif")
    assert np.allclose(bright, dim, atol=1e-6)
    assert np.quantile(bright, 0.999) == pytest.approx(1)


def test_brightness_stays_as_it_is_if_not_asked(tmp_path):
    own = read_own(fill(tmp_path, 3))
    assert not own.even
    assert own.data.images[0].max() * 255 == pytest.approx(pair(0)[0].max())


def test_gray_for_color_and_color_without_color_are_understood(tmp_path):
    gray = pair(1)[0]
    write(tmp_path / "gray.png", gray)
    write(tmp_path / "pale.png", np.dstack([gray] * 3))
    assert _own_images.read_image(tmp_path / "gray.png", channels=3).shape == (1, 3, *SIZE)
    assert _own_images.read_image(tmp_path / "pale.png", channels=1).shape == (1, 1, *SIZE)


# --- the whole way ------------------------------------------------------------------------------


def test_a_few_nuclei_are_learned_from_the_folders_alone(tmp_path, monkeypatch):
    root = os.environ.get("UNET_TUTORIAL_DATA")
    if not root or not (Path(root) / "nuclei/train").is_dir():
        pytest.skip("no nuclei: set UNET_TUTORIAL_DATA")
    wider = runs.choose_settings

    def half(data, **options):
        network, config = wider(data, **options)
        return {**network, "base_channels": 8}, replace(config, crop_size=64, learning_rate=1e-2)

    monkeypatch.setattr(runs, "choose_settings", half)
    for part, number in (("train", 8), ("val", 3)):
        for kind in ("image", "label"):
            (tmp_path / part / kind).mkdir(parents=True)
            for index in range(number):
                name = f"{kind}/{index:03d}.png"
                os.symlink(Path(root) / "nuclei" / part / name, tmp_path / part / name)
    said = []
    run = train_run(
        find_folders(tmp_path), tmp_path / "run", steps=150, device="cpu", report=said.append
    )
    assert "masks are instance numbers" in said[0]
    found = predict_files(run, [tmp_path / "val/image"], tmp_path / "out", report=quiet)
    assert found == []
    masks = [np.asarray(Image.open(tmp_path / f"out/{k:03d}.png")) for k in range(3)]
    truth = [np.asarray(Image.open(tmp_path / f"val/label/{k:03d}.png")) > 0 for k in range(3)]
    assert dice(np.stack(masks), np.stack(truth)) > 0.7
