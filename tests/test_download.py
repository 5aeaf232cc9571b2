"""Fetching weights from a server on this machine that misbehaves in every way that real ones do."""

import hashlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from jaxcolor.cic import download as module
from jaxcolor.cic.download import REGISTRY, Release, download, fetch
from jaxcolor.cic.predict import CIC
from jaxcolor.cic.weights import load_weights, resolve
from jaxcolor.errors import InputError

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves ``content``; each entry of ``cuts`` breaks one answer off after so many bytes."""

    content = CONTENT
    status = 200
    resumes = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/weights.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.resumes else 0
        body = self.server.content[start:]
        self.send_response(self.server.status if not start else 206)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cuts.pop(0)] if self.server.cuts else body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def release(server: Server, content: bytes = CONTENT, **others: object) -> Release:
    return Release(
        url=server.url,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        license="none",
        origin="test",
        training="none",
        **others,
    )


def test_a_clean_download_shows_progress(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download(release(server), server.url, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]
    assert "100%" in capsys.readouterr().err
    download(release(server), server.url, tmp_path / "w.pth")
    assert len(server.ranges) == 1  # a verified file is not fetched again


@pytest.mark.parametrize("resumes", [True, False])
def test_a_broken_transfer_goes_on(server: Server, tmp_path: Path, resumes: bool) -> None:
    server.resumes = resumes
    server.cuts = [100_000, 200_000]
    download(release(server), server.url, tmp_path / "w.pth", progress=False)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert server.ranges[:2] == [None, "bytes=65536-"]


def test_a_transfer_that_gets_no_further_stops_and_the_next_call_resumes(server: Server, tmp_path: Path) -> None:
    server.cuts = [200_000, 0]
    with pytest.raises(InputError, match=r"cannot download .* it resumes; or download that file") as caught:
        download(release(server), server.url, tmp_path / "w.pth", progress=False)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth.part"]
    download(release(server), server.url, tmp_path / "w.pth", progress=False)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert server.ranges[2] == "bytes=196608-"


def test_a_wrong_checksum_names_both_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[::-1]
    got, want = (hashlib.sha256(c).hexdigest() for c in (CONTENT[::-1], CONTENT))
    with pytest.raises(InputError, match=f"SHA-256 {got}, expected {want}; it was deleted"):
        download(release(server), server.url, tmp_path / "w.pth", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_leftover_of_another_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").write_bytes(b"\0" * 1000)
    download(release(server), server.url, tmp_path / "w.pth", progress=False)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_longer_part_is_begun_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").write_bytes(CONTENT + b"more")
    download(release(server), server.url, tmp_path / "w.pth", progress=False)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert server.ranges == [None]


def test_wrong_size_wrong_status_and_no_server_are_explained(server: Server, tmp_path: Path) -> None:
    expected = release(server)
    server.content = CONTENT[:-1]
    with pytest.raises(InputError, match="299999 bytes, expected 300000"):
        download(expected, server.url, tmp_path / "w.pth", progress=False)
    server.status = 404
    with pytest.raises(InputError, match="404"):
        download(expected, server.url, tmp_path / "w.pth", progress=False)
    for url in ("http://127.0.0.1:9/weights.pth", "nonsense"):
        with pytest.raises(InputError, match="jaxcolor weights convert FILE") as caught:
            download(expected, url, tmp_path / "w.pth", progress=False)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JAXCOLOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_fetch_converts_caches_and_cleans_up(
    server: Server, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="the checkpoint converter needs torch")
    from tests import cic_twin

    server.content = cic_twin.save(tmp_path / "small.pth").read_bytes()
    monkeypatch.setitem(REGISTRY, "zhang2016", release(server, server.content, width=1 / 16))
    path = fetch("zhang2016", progress=False)
    assert path == resolve("zhang2016")
    _, manifest = load_weights(path)
    assert (manifest["name"], manifest["source"], manifest["origin"]) == ("zhang2016", server.url, "test")
    assert [p.name for p in cache.rglob("*") if p.is_file()] == ["zhang2016.safetensors"]

    assert fetch("zhang2016", progress=False) == path
    assert len(server.ranges) == 1
    path.write_bytes(b"damaged")
    fetch("zhang2016", progress=False)
    assert len(server.ranges) == 2
    fetch("zhang2016", force=True, url=server.url + "?mirror", progress=False)
    assert len(server.ranges) == 3
    # The same file brought here by hand ends in the same place.
    path.unlink()
    assert module.released_name(tmp_path / "small.pth") == "zhang2016"
    assert module.install(tmp_path / "small.pth", "zhang2016") == path
    # What they are for. Their class weights are built in, so nothing is left to rebalance.
    net = CIC.load("zhang2016")
    distribution = net.predict(np.full((16, 16), 50.0), resolution=16)
    assert net.rebalanced(distribution) is distribution
    assert net.rebalanced(distribution, 0) is distribution
    with pytest.raises(InputError, match="must be 0 or left out"):
        net.rebalanced(distribution, 1)
    assert CIC.averaged([net, net]).manifest["averaged"][0]["step"] is None


def test_fetch_says_what_is_missing_before_downloading(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="expected one of zhang2016"):
        fetch("zhang2017")
    monkeypatch.setitem(REGISTRY, "zhang2016", release(server))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"jaxcolor\[torch\]"):
        fetch("zhang2016")
    assert not server.ranges


def test_an_unusable_cache_is_explained(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="the checkpoint converter needs torch")
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXCOLOR_CACHE", str(tmp_path / "file"))
    monkeypatch.setitem(REGISTRY, "zhang2016", release(server))
    with pytest.raises(InputError, match="set JAXCOLOR_CACHE"):
        fetch("zhang2016", progress=False)
