"""Fetching weights from a server that misbehaves: the right action and a message that says which, and never a damaged
file in the cache.
"""

import hashlib
import json
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

import cnnzoo
from cnnzoo.weights import bundles, download, fetch

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers each request by the next of `plan`, and once that is empty as a good server does."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan, self.ranges, self.paths = [], [], []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()  # looks so often for its end

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/weights.pth"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        self.server.paths.append(self.path)
        name, *arguments = self.server.plan.pop(0) if self.server.plan else ("good",)
        getattr(self, name)(*arguments)

    def good(self, content=CONTENT):
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if start >= len(content):
            self.start(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return
        self.start(206 if start else 200, {"Content-Length": str(len(content) - start)})
        self.wfile.write(content[start:])

    def without_ranges(self):
        self.start(200, {"Content-Length": str(len(CONTENT))})
        self.wfile.write(CONTENT)

    def truncated(self, kept):
        self.start(200, {"Content-Length": str(len(CONTENT))})
        self.wfile.write(CONTENT[:kept])
        self.close_connection = True

    def other_content(self):
        self.start(200, {"Content-Length": "6"})
        self.wfile.write(b"<html>")

    def status(self, code, headers=None):
        self.start(code, {"Content-Length": "0", **(headers or {})})

    def redirect(self):
        self.start(302, {"Location": "/moved.pth", "Content-Length": "0"})

    def linked(self, sha256):
        """As the Hugging Face hub answers: the hash, and where the file is."""
        self.start(302, {"Location": "/moved.pth", "X-Linked-Etag": f'"{sha256}"', "Content-Length": "0"})

    def stall(self):
        self.start(200, {"Content-Length": str(len(CONTENT))})
        self.wfile.write(CONTENT[:1000])
        self.wfile.flush()
        threading.Event().wait(1.5)

    def slow(self):
        threading.Event().wait(0.3)
        self.good()

    def start(self, code, headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder of torch hub's, and quick patience."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    for name in ("CNNZOO_OFFLINE", "CNNZOO_WEIGHTS", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "TIMEOUT", (0.5, 0.5))
    monkeypatch.setattr(download.time, "sleep", waits.append)
    waits.clear()
    return tmp_path / "torch" / "hub" / "checkpoints"


waits = []


@pytest.fixture
def row(server):
    """A row of the table whose file our server has."""
    (any_row,) = [row for row in cnnzoo.list_weights("resnet18") if row.tag == "tv_in1k"]
    return replace(any_row, url=server.url, file="weights.pth", sha256=SHA256[:8], hub=None)


def files(folder):
    """What lies in the cache, but for the lock's empty file."""
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.suffix != ".lock"}


def test_a_file_is_fetched_whole(server, hub, row):
    assert fetch.fetch(row) == hub / "weights.pth"
    assert files(hub) == {"weights.pth": CONTENT}


def test_what_is_there_needs_no_network(server, hub, row):
    fetch.fetch(row)
    server.ranges.clear()
    assert fetch.fetch(row).read_bytes() == CONTENT
    assert server.ranges == []


def test_a_truncated_download_is_gone_on_with(server, hub, row):
    server.plan = [("truncated", 5 * download.BLOCK), ("good",)]
    fetch.fetch(row)
    assert server.ranges == [None, f"bytes={5 * download.BLOCK}-"]
    assert files(hub) == {"weights.pth": CONTENT}


def test_a_download_that_keeps_breaking_off_is_kept_for_the_next_time(server, hub, row):
    server.plan = [("truncated", download.BLOCK)] + [("status", 503)] * 3
    with pytest.raises(cnnzoo.InputError, match=r"has trouble \(503\), 4 times; 0\.1 MiB are kept to go on with"):
        fetch.fetch(row)
    assert files(hub) == {"weights.pth.part": CONTENT[: download.BLOCK]}
    fetch.fetch(row)
    assert server.ranges[-1] == f"bytes={download.BLOCK}-"
    assert files(hub) == {"weights.pth": CONTENT}


def test_a_server_without_ranges_sends_all_again(server, hub, row):
    server.plan = [("truncated", 5 * download.BLOCK), ("without_ranges",)]
    fetch.fetch(row)
    assert files(hub) == {"weights.pth": CONTENT}


def test_what_was_begun_of_another_file_is_begun_anew(server, hub, row):
    hub.mkdir(parents=True)
    (hub / "weights.pth.part").write_bytes(b"x" * 1000)
    fetch.fetch(row)
    assert server.ranges == ["bytes=1000-", None]
    assert files(hub) == {"weights.pth": CONTENT}


def test_a_part_longer_than_the_file_is_begun_anew(server, hub, row):
    hub.mkdir(parents=True)
    (hub / "weights.pth.part").write_bytes(b"x" * (len(CONTENT) + 5))
    fetch.fetch(row)
    assert files(hub) == {"weights.pth": CONTENT}


def test_a_part_that_is_whole_only_wants_its_check(server, hub, row):
    hub.mkdir(parents=True)
    (hub / "weights.pth.part").write_bytes(CONTENT)
    fetch.fetch(row)
    assert files(hub) == {"weights.pth": CONTENT}


def test_a_wrong_hash_is_told_and_thrown_away(server, hub, row):
    server.plan = [("other_content",)]
    with pytest.raises(
        cnnzoo.InputError, match=rf"is not the file it was: its SHA-256 begins \w{{8}}, not {SHA256[:8]}"
    ):
        fetch.fetch(row)
    assert files(hub) == {}


@pytest.mark.parametrize(
    ("code", "says"),
    [(403, r"refuses \(403\)"), (404, r"does not have it \(404\)"), (401, r"wants a login \(401\)")],
)
def test_a_refusal_is_told_at_once(server, hub, row, code, says):
    server.plan = [("status", code)]
    with pytest.raises(cnnzoo.InputError, match=says):
        fetch.fetch(row)
    assert len(server.ranges) == 1
    assert files(hub) == {}


def test_too_many_requests_wait_as_long_as_asked(server, hub, row):
    server.plan = [("status", 429, {"Retry-After": "7"}), ("status", 429)]
    fetch.fetch(row)
    assert waits == [7, 2]
    assert files(hub) == {"weights.pth": CONTENT}


def test_too_many_requests_for_ever_are_told(server, hub, row):
    server.plan = [("status", 429)] * 4
    with pytest.raises(cnnzoo.InputError, match=r"limits our requests \(429\), 4 times"):
        fetch.fetch(row)
    assert files(hub) == {}


def test_a_redirect_is_followed(server, hub, row):
    server.plan = [("redirect",)]
    fetch.fetch(row)
    assert server.paths == ["/weights.pth", "/moved.pth"]
    assert files(hub) == {"weights.pth": CONTENT}


def test_a_stall_is_gone_on_with(server, hub, row):
    server.plan = [("stall",)]
    fetch.fetch(row)
    assert files(hub) == {"weights.pth": CONTENT}


def test_a_stall_that_stays_is_told(server, hub, row):
    server.plan = [("stall",)] * 4
    with pytest.raises(cnnzoo.InputError, match=r"weights\.pth stalled, 4 times"):
        fetch.fetch(row)
    assert "weights.pth" not in files(hub)


def test_no_server_at_all_says_where_to_put_the_file(server, hub, row):
    server.shutdown()
    server.server_close()
    with pytest.raises(cnnzoo.InputError) as refusal:
        fetch.fetch(row)
    assert "cannot be reached" in str(refusal.value)
    assert f"get {server.url} elsewhere and put it into {hub} as weights.pth" in str(refusal.value)


def test_offline_asks_nobody_and_says_how_to_place_the_file(server, hub, row, monkeypatch):
    monkeypatch.setenv("CNNZOO_OFFLINE", "1")
    with pytest.raises(cnnzoo.InputError) as refusal:
        fetch.fetch(row)
    assert f"weights.pth is not in {hub} and could not be fetched (CNNZOO_OFFLINE is set)" in str(refusal.value)
    assert "let CNNZOO_WEIGHTS name the folder where it lies" in str(refusal.value)
    assert "cnnzoo weights import weights.tar" in str(refusal.value)
    assert "which are here" not in str(refusal.value)
    assert server.ranges == []


def test_a_folder_of_weights_that_is_not_there_is_told(hub, row, tmp_path, monkeypatch):
    monkeypatch.setenv("CNNZOO_OFFLINE", "1")
    monkeypatch.setenv("CNNZOO_WEIGHTS", str(tmp_path / "wieghts"))
    with pytest.raises(cnnzoo.InputError, match=r"CNNZOO_WEIGHTS names .*/wieghts, and there is no such folder"):
        fetch.fetch(row)
    (tmp_path / "wieghts").mkdir()
    with pytest.raises(cnnzoo.InputError) as refusal:
        fetch.fetch(row)
    assert "no such folder" not in str(refusal.value)


def test_other_weights_of_the_net_that_are_here_are_named(hub, row, monkeypatch):
    monkeypatch.setenv("CNNZOO_OFFLINE", "1")
    (other,) = [other for other in cnnzoo.list_weights("resnet18") if other.tag == "a1_in1k"]
    hub.mkdir(parents=True)
    (hub / other.file).write_bytes(CONTENT)
    with pytest.raises(cnnzoo.InputError, match=r"other weights of this net, which are here: pretrained a1_in1k$"):
        fetch.fetch(row)


def test_several_at_once_fetch_it_once(server, hub, row):
    server.plan = [("slow",)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fetch.fetch(row), range(4)))
    assert set(found) == {hub / "weights.pth"}
    assert len(server.ranges) == 1


# --- the Hugging Face hub


@pytest.fixture
def hub_row(server, row, monkeypatch):
    """A row that only the hub has."""
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    return replace(row, url=None, sha256="", hub="timm/resnet18.x")


def test_the_hubs_own_hash_is_checked(server, hub, hub_row):
    server.plan = [("linked", SHA256)]
    assert fetch.fetch(hub_row) == hub / "resnet18.tv_in1k.safetensors"
    assert server.paths[0] == "/timm/resnet18.x/resolve/main/model.safetensors"


def test_a_file_that_is_not_what_the_hub_told_is_thrown_away(server, hub, hub_row):
    server.plan = [("linked", "0" * 64)]
    with pytest.raises(cnnzoo.InputError, match="is not the file it was"):
        fetch.fetch(hub_row)
    assert files(hub) == {}


def test_the_hub_is_asked_where_the_address_fails(server, hub, row, hub_row):
    both = replace(hub_row, url=server.url)
    server.plan = [("status", 404), ("linked", SHA256)]
    assert fetch.fetch(both).read_bytes() == CONTENT


def test_the_hubs_cache_is_used_as_it_is(server, hub, hub_row, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    repository = tmp_path / "hf" / "models--timm--resnet18.x"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "blobs").mkdir()
    (repository / "blobs" / SHA256).write_bytes(CONTENT)
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "model.safetensors").symlink_to(repository / "blobs" / SHA256)
    assert fetch.fetch(hub_row).read_bytes() == CONTENT
    assert server.ranges == []
    assert fetch.verify(hub_row) == "whole"
    (repository / "blobs" / SHA256).write_bytes(CONTENT[:-1])
    assert fetch.verify(hub_row) == "damaged"


# --- verify, bundle, import


def test_verify_finds_the_damaged(server, hub, row):
    assert fetch.verify(row) == "not here"
    fetch.fetch(row)
    assert fetch.verify(row) == "whole"
    (hub / "weights.pth").write_bytes(CONTENT[:-1] + b"?")
    assert fetch.verify(row) == "damaged"


def test_a_bundle_carries_files_to_where_there_is_no_network(server, hub, row, tmp_path, monkeypatch):
    bundles.bundle([row], tmp_path / "weights.tar")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("CNNZOO_OFFLINE", "1")
    (placed,) = bundles.unbundle(tmp_path / "weights.tar")
    assert fetch.fetch(row) == placed
    assert placed.read_bytes() == CONTENT


def test_a_bundle_takes_rows_from_a_generator(server, hub, row, tmp_path):
    assert bundles.bundle((each for each in [row]), tmp_path / "weights.tar") == [hub / "weights.pth"]


def test_a_damaged_file_is_not_bundled(server, hub, row, tmp_path):
    file = fetch.fetch(row)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(cnnzoo.InputError, match="is damaged; remove it, and it is fetched anew"):
        bundles.bundle([row], tmp_path / "weights.tar")
    assert not (tmp_path / "weights.tar").exists()


def test_a_bundle_leaves_the_unfinished_one_of_another_process_alone(server, hub, row, tmp_path):
    other = tmp_path / ".weights.tar.part"
    other.write_bytes(b"half")
    bundles.bundle([row], tmp_path / "weights.tar")
    assert other.read_bytes() == b"half"


@pytest.mark.parametrize(("name", "says"), [("", "is a folder"), ("file/w.tar", "cannot be written")])
def test_where_no_bundle_can_be_written_nothing_is_fetched(server, hub, row, tmp_path, name, says):
    (tmp_path / "file").touch()
    with pytest.raises(cnnzoo.InputError, match=says):
        bundles.bundle([row], tmp_path / name)
    assert files(hub) == {}


@pytest.mark.parametrize("kept", [0.1, 0.6, 0.99])
def test_a_bundle_cut_short_places_nothing_damaged(server, hub, row, tmp_path, monkeypatch, kept):
    bundles.bundle([row], tmp_path / "weights.tar")
    whole = (tmp_path / "weights.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: int(len(CONTENT) * kept)])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(cnnzoo.InputError, match=r"cut\.tar"):
        bundles.unbundle(tmp_path / "cut.tar")
    assert files(tmp_path / "elsewhere" / "hub" / "checkpoints") == {}


def test_a_bundle_with_a_changed_byte_is_refused(server, hub, row, tmp_path, monkeypatch):
    bundles.bundle([row], tmp_path / "weights.tar")
    content = bytearray((tmp_path / "weights.tar").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "weights.tar").write_bytes(content)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(cnnzoo.InputError, match=r"weights\.pth in .* is damaged"):
        bundles.unbundle(tmp_path / "weights.tar")


def test_a_tar_that_is_no_bundle_is_refused(hub, tmp_path):
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(__file__, "../../outside.py")
    with pytest.raises(cnnzoo.InputError, match="is no bundle of weights"):
        bundles.unbundle(tmp_path / "other.tar")


# --- the commands


@pytest.fixture
def weights(cli, hub, monkeypatch):
    """Run `cnnzoo weights` without a network."""
    monkeypatch.setenv("CNNZOO_OFFLINE", "1")
    hub.mkdir(parents=True)
    return partial(cli, "weights")


def test_list_tells_accuracy_licence_and_what_is_here(weights, hub):
    (hub / "resnet18-f37072fd.pth").write_bytes(b"")
    lines = {line.split()[1]: line.split()[2:] for line in weights("list", "resnet18")[1].splitlines()}
    assert lines["tv_in1k"] == ["69.76", "89.08", "224", "44.7", "bsd-3-clause", "here"]
    assert lines["fb_swsl_ig1b_ft_in1k"] == ["73.29", "91.75", "224", "-", "cc-by-nc-4.0"]
    (row,) = json.loads(weights("list", "resnet18.tv*", "--json")[1])
    assert (row["file"], row["mib"], row["here"]) == ("resnet18-f37072fd.pth", 44.661, True)


def test_verify_names_what_is_damaged(weights, hub):
    (hub / "resnet18-f37072fd.pth").write_bytes(b"damaged")
    code, out, err = weights("verify")
    assert (code, out) == (2, f"resnet18.tv_in1k  damaged  {hub}/resnet18-f37072fd.pth\n")
    assert "resnet18-f37072fd.pth" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fetch", "resnet34.tv_in1k"], "resnet34-b627a593.pth is not in"),
        (["fetch", "resnet34.tv1k"], "its tags are"),
        (["fetch", "resent34"], "did you mean resnet34"),
        (["list", "resnet18.x*"], "there are no weights 'resnet18.x*'"),
        (["list", "plain*"], "there are no weights 'plain*'"),
        (["bundle", "resnet34.tv_in1k", "--out", "w.tar"], "resnet34-b627a593.pth is not in"),
        (["import", "nothing.tar"], "No such file or directory: nothing.tar"),
        (["fetsch"], "unknown command of cnnzoo weights 'fetsch'; did you mean fetch?"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(weights, fails, hub, arguments, says, tmp_path):
    assert says in fails("weights", *arguments)
    assert files(hub) == {}
    assert not (tmp_path / "w.tar").exists()


def test_a_pattern_brings_no_weights_of_an_excluded_licence(weights, fails, hub, tmp_path, monkeypatch):
    for row in cnnzoo.list_weights("squeezenet1_1"):
        (hub / row.file).touch()
    assert weights("fetch", "squeezenet1_1.*")[1].split()[::2] == ["squeezenet1_1.tv_in1k", "squeezenet1_1.caffe_in1k"]
    monkeypatch.setenv("CNNZOO_EXCLUDE_LICENCES", "bsd-2*")
    assert weights("fetch", "squeezenet1_1.*")[1].split()[::2] == ["squeezenet1_1.tv_in1k"]
    assert "is under bsd-2-clause" in fails("weights", "bundle", "squeezenet1_1.c*", "--out", "w.tar")
    assert not (tmp_path / "w.tar").exists()


def test_a_bundle_made_here_is_imported_there(weights, hub, tmp_path, monkeypatch):
    torch.save({"x": torch.zeros(2)}, hub / "resnet18-f37072fd.pth")
    monkeypatch.setattr(bundles, "verify", lambda row: "whole")  # which the real file, too large for a test, would be
    assert weights("bundle", "resnet18.tv_in1k", "--out", tmp_path / "w.tar")[0] == 0
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "there"))
    placed = tmp_path / "there" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    assert weights("import", tmp_path / "w.tar")[1] == f"{placed}\n"
    assert placed.read_bytes() == (hub / "resnet18-f37072fd.pth").read_bytes()
