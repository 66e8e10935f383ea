"""Fetching, against a server on this machine: whole, resumed, wrong, broken off."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import sys
import threading
from functools import partial

import pytest
from rich.progress import Progress as Bar

from netwright.app import lists
from netwright.core import progress
from netwright.core.errors import BadInput
from netwright.data import fetch as fetching
from netwright.data import places, sources
from netwright.data.sources import File, Source

CONTENT = bytes(range(256)) * 4000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; `cut` ends a whole answer after so many bytes."""

    def __init__(self, server, *args):
        self.served = server
        super().__init__(*args)

    def do_GET(self):
        self.served["ranges"].append(self.headers.get("Range"))
        body = self.served["content"]
        start = 0
        if self.headers.get("Range") and self.served["resumes"]:
            start = int(self.headers["Range"].split("=")[1].rstrip("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = self.served["cut"] if self.served["cut"] and not start else len(body)
        self.wfile.write(body[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    state = {"content": CONTENT, "resumes": True, "cut": None, "ranges": []}
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, state))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    state["url"] = f"http://127.0.0.1:{httpd.server_port}/file.bin"
    yield state
    httpd.shutdown()
    httpd.server_close()


def file_at(server, content=CONTENT, name="file.bin") -> File:
    return File(name, server["url"], hashlib.sha256(content).hexdigest())


def test_a_file_arrives_whole_with_progress(server, tmp_path):
    heard = []
    with progress.listen(heard.append):
        path = fetching.download(file_at(server), tmp_path)
    assert path.read_bytes() == CONTENT
    assert heard[-1].done == heard[-1].total == len(CONTENT)
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("resumes", [True, False])
def test_what_broke_off_goes_on_where_it_stopped(server, tmp_path, resumes):
    server.update(cut=300_000, resumes=resumes)
    with pytest.raises(BadInput, match="goes on from here"):
        fetching.download(file_at(server), tmp_path)
    assert not (tmp_path / "file.bin").exists()
    assert (tmp_path / "file.bin.part").stat().st_size == 300_000
    server["cut"] = None
    assert fetching.download(file_at(server), tmp_path).read_bytes() == CONTENT
    assert server["ranges"][-1] == "bytes=300000-"


def test_a_complete_part_is_only_renamed(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert fetching.download(file_at(server), tmp_path).read_bytes() == CONTENT


def test_a_wrong_file_is_thrown_away(server, tmp_path):
    with pytest.raises(BadInput, match="is not what it should be"):
        fetching.download(file_at(server, b"something else"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_checksum_of_gzip_is_that_of_its_content(server, tmp_path):
    server["content"] = gzip.compress(CONTENT, 1)
    fetching.download(file_at(server, name="file.gz"), tmp_path)
    assert gzip.decompress((tmp_path / "file.gz").read_bytes()) == CONTENT
    server["content"] = gzip.compress(CONTENT, 1)[:-20]
    with pytest.raises(BadInput, match="is not what it should be"):
        fetching.download(file_at(server, name="other.gz"), tmp_path)


def test_no_server_is_one_clear_error(tmp_path):
    file = File("a", "http://127.0.0.1:9/a", "0")
    with pytest.raises(BadInput, match="or put the file into"):
        fetching.download(file, tmp_path)


def test_a_name_is_fetched_once_into_the_cache_and_then_found(server, cache, monkeypatch):
    monkeypatch.delenv("NETWRIGHT_DATA", raising=False)
    made = Source("toy", "", 1, "", 2, "", "toy", (file_at(server),))
    monkeypatch.setitem(sources.SOURCES, "toy", made)
    folder = fetching.fetch("toy")
    assert folder == cache / "netwright" / "data" / "toy"
    assert places.locate(made) == [folder / "file.bin"]
    assert fetching.fetch("toy") == folder
    assert len(server["ranges"]) == 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def toy(server, cache, monkeypatch):
    """A data set of one file on the server of this machine; the folder that it comes to lie in."""
    monkeypatch.delenv("NETWRIGHT_DATA", raising=False)
    monkeypatch.setitem(sources.SOURCES, "toy", Source("toy", "", 1, "", 2, "", "toy", (file_at(server),)))
    return cache / "netwright" / "data" / "toy"


def test_the_command_shows_how_far_it_is(toy, monkeypatch):
    """On a terminal: every step that `fetch` makes reaches the bar, and the last fills it."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    heard = []
    update = Bar.update

    def note(bar, row, **what):
        heard.append((what["completed"], what["total"], what["description"]))
        update(bar, row, **what)

    monkeypatch.setattr(Bar, "update", note)
    lists.data("get", "toy", as_json=False)
    done = [step[0] for step in heard]
    assert len(done) > 2
    assert done == sorted(done)
    assert heard[-1] == (len(CONTENT), len(CONTENT), "fetching toy: file.bin")
    shown = sys.stdout.getvalue()
    assert "fetching toy: file.bin" in shown
    assert shown.endswith(f"{toy}\n")
    assert progress._listener.get() is None, "nobody listens when it is over"


def test_a_pipe_gets_the_folder_alone_and_json_is_json(toy, capsys):
    lists.data("get", "toy", as_json=False)
    assert capsys.readouterr().out == f"{toy}\n"
    lists.data("get", "toy", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"name": "toy", "folder": str(toy)}


def test_netwright_data_is_looked_in_first(server, tmp_path, monkeypatch):
    made = Source("toy", "", 1, "", 2, "", "toy", (file_at(server),))
    monkeypatch.setitem(sources.SOURCES, "toy", made)
    (tmp_path / "mine" / "toy").mkdir(parents=True)
    (tmp_path / "mine" / "toy" / "file.bin").write_bytes(b"mine")
    monkeypatch.setenv("NETWRIGHT_DATA", str(tmp_path / "mine"))
    assert fetching.fetch("toy") == tmp_path / "mine" / "toy"
    assert not server["ranges"]


def test_an_unwritable_cache_is_one_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("NETWRIGHT_DATA", raising=False)
    monkeypatch.setenv("NETWRIGHT_CACHE", str(tmp_path / "file"))
    with pytest.raises(BadInput, match="cannot write"):
        fetching.fetch("mnist")


def test_what_is_embedded_needs_no_fetching():
    assert any(file.name.startswith("digits") for file in fetching.fetch("digits").iterdir())
