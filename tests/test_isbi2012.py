"""ISBI 2012 is found, verified and downloaded; nothing half or corrupt is ever used.

The server is this test's own, and so are its few small files.
"""

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_tutorial import _isbi2012
from unet_tutorial.datasets import CorruptDataError, DataNotFoundError, load

SIZE = 16
NUMBER = 6


def png(array):
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def files():
    """Six slices: bytes by path."""
    rng = np.random.default_rng(0)
    found = {}
    for index in range(NUMBER):
        image = rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
        label = np.where(rng.random((SIZE, SIZE)) < 0.75, 255, 0).astype(np.uint8)
        label[0, 0], label[0, 1] = 255, 0
        found[f"train/image/{index}.png"] = png(image)
        found[f"train/label/{index}.png"] = png(label)
    return found


class Server:
    """Serves `files`; `mood` tells, for a path, how the next answers go wrong."""

    def __init__(self, files):
        self.files = files
        self.mood = {}
        self.asked = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(404)
                self.end_headers()

            def do_GET(self):
                name = self.path.lstrip("/")
                server.asked.append(name)
                moods = server.mood.get(name, [])
                mood = moods.pop(0) if moods else "well"
                body = server.files[name]
                if mood == "missing":
                    self.send_error(404)
                    return
                if mood == "busy":
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if mood == "cut off":
                    body = body[: len(body) // 2]
                if mood == "corrupt":
                    body = body[:-1] + bytes([body[-1] ^ 1])
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def home(tmp_path, monkeypatch, files):
    """A machine with an empty data/, an empty cache and this test's registry."""
    monkeypatch.delenv("UNET_TUTORIAL_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    checks = {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}
    monkeypatch.setattr(_isbi2012, "registry", lambda: checks)
    original = _isbi2012.places

    def places():
        named = [place for place in original() if not place.ours]
        return [
            *named,
            _isbi2012.Place(tmp_path / "checkout", "from this checkout's data/", ours=True),
            _isbi2012.Place(tmp_path / "cache", "from your cache", ours=True),
        ]

    monkeypatch.setattr(_isbi2012, "places", places)
    monkeypatch.setattr(_isbi2012, "BASE_URL", "http://127.0.0.1:1/")  # nobody listens
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    return tmp_path


@pytest.fixture
def server(home, files, monkeypatch):
    server = Server(files)
    monkeypatch.setattr(_isbi2012, "BASE_URL", server.address)
    monkeypatch.setattr(_isbi2012, "CONNECT_SECONDS", 60)  # a busy machine is not a missing network
    yield server
    server.close()


def put(folder, files):
    for name, body in files.items():
        path = folder / "isbi2012" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder


def lying_about(folder):
    """Every file below a folder, by its path there."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def whole(files):
    return {f"isbi2012/{name}" for name in files}


def test_the_registry_lists_both_files_of_thirty_slices():
    listed = _isbi2012.registry()
    assert list(listed) == [f"train/{k}/{i}.png" for k in ("image", "label") for i in range(30)]
    assert all(len(check) == 64 and int(check, 16) for check in listed.values())
    assert len(set(listed.values())) == 60


def test_the_address_is_pinned_to_a_commit():
    assert _isbi2012.BASE_URL.startswith("https://raw.githubusercontent.com/zhixuhao/unet/")
    assert "b45af4d458437d8281cc218a07fd4380818ece4a" in _isbi2012.BASE_URL


def test_files_are_looked_for_in_the_named_folder_then_the_checkout_then_the_cache(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("UNET_TUTORIAL_DATA", str(tmp_path))
    named, *ours = _isbi2012.places()
    assert named.folder == tmp_path
    assert not named.ours
    said = [place.said for place in ours]
    assert said[-1] == "from your cache"
    assert said[:-1] in ([], ["from this checkout's data/"])
    assert all(place.ours for place in ours)


@pytest.mark.skipif(not os.environ.get("UNET_TUTORIAL_DATA"), reason="needs the real stack")
def test_the_real_stack_is_the_challenges(capsys):
    data = load("isbi2012")
    assert capsys.readouterr().out == ("isbi2012: 30 images of 512×512, from UNET_TUTORIAL_DATA\n")
    images = np.stack([np.round(image[0] * 255).astype(np.uint8) for image in data.images])
    labels = np.stack([np.where(label == 0, 255, 0).astype(np.uint8) for label in data.labels])
    assert hashlib.sha256(images.tobytes()).hexdigest() == (
        "200da3d452d726e6c9ca1ce04b869d4edb727320d23b516d01cce707dc8c4760"
    )
    assert hashlib.sha256(labels.tobytes()).hexdigest() == (
        "a7cb64000a1a7e542682927e19c91339f58f9f178e0bcce4e207371116f0ca36"
    )
    assert data.validation_indices == (10, 11, 12, 13, 14, 25, 26, 27, 28, 29)
    assert data.class_fractions[1] == pytest.approx(0.22, abs=0.01)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("named", "from UNET_TUTORIAL_DATA"),
        ("checkout", "from this checkout's data/"),
        ("cache", "from your cache"),
    ],
)
def test_what_is_on_disk_is_taken_without_a_network(home, files, monkeypatch, capsys, where, said):
    if where == "named":
        monkeypatch.setenv("UNET_TUTORIAL_DATA", str(home / "named"))
    put(home / where, files)
    data = load("auto")
    assert data.name == "isbi2012"
    assert capsys.readouterr().out == f"isbi2012: 6 images of 16×16, {said}\n"


def test_black_lines_of_the_labels_become_class_one(home, files):
    put(home / "cache", files)
    data = load("isbi2012")
    assert data.class_names == ("cell", "membrane")
    assert all(label[0, 0] == 0 and label[0, 1] == 1 for label in data.labels)
    assert {value for label in data.labels for value in np.unique(label)} == {0, 1}
    assert all(image.dtype == np.float32 and image.min() >= 0 for image in data.images)
    assert max(image.max() for image in data.images) == 1


def test_a_download_shows_terms_and_citation_and_lands_in_the_checkout(server, home, files, capsys):
    data = load("auto")
    out, err = capsys.readouterr()
    assert len(data) == NUMBER
    assert "non-commercial" in out
    assert "Arganda-Carreras" in out
    assert "Cardona" in out
    assert out.splitlines()[-1] == (
        "isbi2012: 6 images of 16×16, downloaded to this checkout's data/"
    )
    assert "12/12" in err  # the progress bar
    assert lying_about(home / "checkout") == whole(files)
    assert not (home / "cache").exists()


def test_the_second_load_asks_the_server_for_nothing(server, capsys):
    load("isbi2012")
    server.asked.clear()
    load("isbi2012")
    assert server.asked == []
    assert capsys.readouterr().out.endswith("from this checkout's data/\n")


@pytest.mark.parametrize("mood", ["cut off", "corrupt", "busy"])
def test_a_broken_answer_is_asked_for_again(server, home, files, mood):
    server.mood["train/label/3.png"] = [mood]
    load("isbi2012")
    assert server.asked.count("train/label/3.png") == 2
    assert lying_about(home / "checkout") == whole(files)


def test_what_stays_corrupt_is_named_and_never_kept(server, home, files):
    name = "train/image/2.png"
    server.mood[name] = ["corrupt"] * 9
    with pytest.raises(CorruptDataError, match=r"train/image/2\.png arrived corrupt 3 times"):
        load("isbi2012")
    assert server.asked.count(name) == 3
    assert lying_about(home / "checkout") <= whole(files) - {f"isbi2012/{name}"}


def test_what_stays_cut_off_is_named_and_never_kept(server, home, files):
    name = "train/image/2.png"
    server.mood[name] = ["cut off"] * 9
    with pytest.raises(DataNotFoundError, match=r"train/image/2\.png could not be downloaded"):
        load("isbi2012")
    assert lying_about(home / "checkout") <= whole(files) - {f"isbi2012/{name}"}


def test_a_file_that_the_server_does_not_have_is_asked_for_once(server):
    name = "train/label/0.png"
    server.mood[name] = ["missing"] * 9
    with pytest.raises(DataNotFoundError, match=r"label/0\.png is not there: .* answered 404"):
        load("isbi2012")
    assert server.asked.count(name) == 1


def test_an_interrupted_download_goes_on_where_it_stopped(server, home, files):
    server.mood["train/label/5.png"] = ["missing"]
    with pytest.raises(DataNotFoundError):
        load("isbi2012")
    kept = {name.removeprefix("isbi2012/") for name in lying_about(home / "checkout")}
    server.asked.clear()
    load("isbi2012")
    assert set(server.asked) == set(files) - kept


@pytest.mark.parametrize("damage", ["half a file", "another file"])
def test_a_corrupt_file_on_disk_is_refused_by_name_with_both_checksums(home, files, damage):
    put(home / "checkout", files)
    path = home / "checkout/isbi2012/train/image/4.png"
    good = files["train/image/4.png"]
    bad = good[: len(good) // 2] if damage == "half a file" else files["train/image/3.png"]
    path.write_bytes(bad)
    with pytest.raises(CorruptDataError) as caught:
        load("isbi2012")
    for part in (str(path), hashlib.sha256(good).hexdigest(), hashlib.sha256(bad).hexdigest()):
        assert part in str(caught.value)
    assert "Delete it" in str(caught.value)
    assert path.read_bytes() == bad  # it is the user's file


def test_several_corrupt_files_are_all_counted(home, files):
    put(home / "cache", dict.fromkeys(files, b"nothing"))
    with pytest.raises(CorruptDataError, match=r"image/0\.png is corrupt .* and 8 more"):
        load("isbi2012")


def test_auto_warns_of_a_corrupt_file_and_takes_the_next_good_place(home, files, capsys):
    put(home / "checkout", files)
    (home / "checkout/isbi2012/train/image/4.png").write_bytes(b"")
    put(home / "cache", files)
    assert load("auto").name == "isbi2012"
    warning, taken = capsys.readouterr().out.splitlines()
    assert warning.startswith("WARNING: ISBI 2012 from this checkout's data/")
    assert taken.endswith("from your cache")


def test_auto_downloads_beside_a_corrupt_file_not_over_it(server, home, files):
    put(home / "checkout", files)
    bad = home / "checkout/isbi2012/train/image/4.png"
    bad.write_bytes(b"mine")
    load("auto")
    assert bad.read_bytes() == b"mine"
    assert lying_about(home / "cache") == whole(files)


def test_a_named_folder_that_lacks_files_is_refused_with_their_names(home, files, monkeypatch):
    monkeypatch.setenv("UNET_TUTORIAL_DATA", str(home / "named"))
    put(home / "named", {n: b for n, b in files.items() if n != "train/label/1.png"})
    with pytest.raises(DataNotFoundError, match=r"has 11 of 12 files, without train/label/1\.png"):
        load("isbi2012")


def test_a_named_folder_that_is_not_there_is_an_error(home, monkeypatch):
    monkeypatch.setenv("UNET_TUTORIAL_DATA", str(home / "nowhere"))
    with pytest.raises(DataNotFoundError, match=r"UNET_TUTORIAL_DATA names .*nowhere"):
        load("isbi2012")


def test_a_named_folder_without_this_data_set_is_passed_over(home, files, monkeypatch, capsys):
    monkeypatch.setenv("UNET_TUTORIAL_DATA", str(home))
    put(home / "cache", files)
    load("isbi2012")
    assert capsys.readouterr().out.endswith("from your cache\n")


@pytest.mark.usefixtures("home")
def test_without_a_network_auto_takes_the_synthetic_membranes_and_says_why(capsys):
    data = load("auto", n_images=4, size=64, seed=3)
    assert data.name == "membranes"
    assert capsys.readouterr().out == (
        "membranes: 4 images of 64×64, generated from seed 3; "
        "ISBI 2012 is not on disk and could not be downloaded\n"
    )


@pytest.mark.usefixtures("home")
def test_without_a_network_who_insists_is_told_what_to_do():
    with pytest.raises(DataNotFoundError, match=r"UNET_TUTORIAL_DATA.*or ask for 'membranes'"):
        load("isbi2012")


def test_auto_says_loudly_that_a_download_stays_corrupt(server, capsys):
    server.mood["train/image/2.png"] = ["corrupt"] * 9
    assert load("auto", n_images=4, size=64).name == "membranes"
    out = capsys.readouterr().out
    assert "WARNING: ISBI 2012: train/image/2.png arrived corrupt" in out
    assert out.splitlines()[-1].startswith("membranes: ")


def test_auto_says_loudly_that_the_server_has_no_such_file(server, capsys):
    server.mood["train/image/2.png"] = ["missing"]
    assert load("auto", n_images=4, size=64).name == "membranes"
    assert "WARNING: ISBI 2012: train/image/2.png is not there" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_named(server, home):
    (home / "checkout").write_text("a file where the folder should be")
    with pytest.raises(DataNotFoundError, match=r"no place on this disk: .*checkout"):
        load("isbi2012")


@pytest.mark.usefixtures("server")
def test_many_files_at_once_do_not_get_in_each_others_way(home, monkeypatch):
    # A slow check whether a folder is there lets every worker think that it has to make it.
    exists = Path.exists

    def slow(path):
        there = exists(path)
        threading.Event().wait(0.05)
        return there

    monkeypatch.setattr(Path, "exists", slow)
    assert len(load("isbi2012")) == NUMBER


def test_a_server_that_never_answers_is_given_up_in_time(home, monkeypatch):
    silent = threading.Event()

    def hang(*_, **__):
        silent.wait(30)

    monkeypatch.setattr(_isbi2012.requests, "head", hang)
    monkeypatch.setattr(_isbi2012, "CONNECT_SECONDS", -0.8)
    with pytest.raises(DataNotFoundError, match="no answer in"):
        load("isbi2012")
    silent.set()
    assert lying_about(home) == set()


def test_a_folder_that_cannot_be_written_is_not_downloaded_to(server, home, monkeypatch):
    blocked = home / "checkout"
    monkeypatch.setattr(_isbi2012, "_writable", lambda folder: folder != blocked)
    load("isbi2012")
    assert not blocked.exists()
    assert (home / "cache/isbi2012").is_dir()


def test_a_card_says_terms_and_citation():
    card = Path(__file__).parent.parent / "data" / "isbi2012.md"
    text = " ".join(card.read_text("utf-8").split())
    assert _isbi2012.TERMS.split(";")[0] in text
    for doi in ("10.3389/fnana.2015.00142", "10.1371/journal.pbio.1000502"):
        assert doi in text
        assert doi in _isbi2012.CITATION
