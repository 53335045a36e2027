"""Fetching from a server on the loopback interface."""

import hashlib
import os

import pytest

from shared.data.catalog import DOWNLOADS, Remote
from shared.data.fetch import FetchError, checksum, fetch
from shared.errors import UsageError
from tests.shared.data.server import serve

CONTENT = os.urandom(300_000)


@pytest.fixture
def server():
    with serve() as served:
        served.files["set/file.gz"] = CONTENT
        yield served


def remote(*urls: str, content: bytes = CONTENT) -> Remote:
    return Remote("set/file.gz", hashlib.md5(content).hexdigest(), urls)


def names(directory) -> list[str]:
    return sorted(path.name for path in (directory / "set").iterdir())


def test_fetch_verifies_and_names(server, tmp_path):
    assert fetch(remote(f"{server.url}/set/file.gz"), tmp_path)
    assert (tmp_path / "set" / "file.gz").read_bytes() == CONTENT
    assert names(tmp_path) == ["file.gz"]


def test_good_file_is_not_fetched_again(server, tmp_path):
    file = remote(f"{server.url}/set/file.gz")
    fetch(file, tmp_path)
    before = (tmp_path / "set" / "file.gz").stat().st_mtime_ns
    assert not fetch(file, tmp_path)
    assert len(server.requests) == 1
    assert (tmp_path / "set" / "file.gz").stat().st_mtime_ns == before


def test_partial_download_is_continued(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.gz.part").write_bytes(CONTENT[:100_000])
    fetch(remote(f"{server.url}/set/file.gz"), tmp_path)
    assert server.requests == [("set/file.gz", "bytes=100000-")]
    assert checksum(tmp_path / "set" / "file.gz") == remote().md5
    assert names(tmp_path) == ["file.gz"]


def test_complete_part_only_needs_its_name(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.gz.part").write_bytes(CONTENT)
    assert fetch(remote(f"{server.url}/set/file.gz"), tmp_path)
    assert names(tmp_path) == ["file.gz"]


def test_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.gz.part").write_bytes(CONTENT[:100_000])
    fetch(remote(f"{server.url}/set/file.gz"), tmp_path)
    assert (tmp_path / "set" / "file.gz").read_bytes() == CONTENT


def test_wrong_part_is_thrown_away(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.gz.part").write_bytes(b"x" * 1000)
    fetch(remote(f"{server.url}/set/file.gz"), tmp_path)
    assert [asked for _, asked in server.requests] == ["bytes=1000-", None]
    assert (tmp_path / "set" / "file.gz").read_bytes() == CONTENT


def test_broken_connection_is_resumed(server, tmp_path):
    server.break_after = 70_000
    fetch(remote(f"{server.url}/set/file.gz"), tmp_path)
    assert [asked for _, asked in server.requests] == [None, "bytes=70000-"]
    assert (tmp_path / "set" / "file.gz").read_bytes() == CONTENT


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    file = remote(f"{server.url}/set/file.gz", content=b"the true content")
    with pytest.raises(FetchError, match="checksum differs") as raised:
        fetch(file, tmp_path)
    assert names(tmp_path) == [] and "\n" not in str(raised.value)


def test_file_that_was_there_survives_a_failed_fetch(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.gz").write_bytes(b"mine")
    with pytest.raises(FetchError):
        fetch(remote(f"{server.url}/set/file.gz", content=b"true"), tmp_path)
    assert (tmp_path / "set" / "file.gz").read_bytes() == b"mine"


def test_next_address_is_tried_and_goes_on(server, tmp_path):
    server.files["mirror.gz"] = CONTENT
    urls = [f"{server.url}/absent", "http://127.0.0.1:9/refused"]
    assert fetch(remote(*urls, f"{server.url}/mirror.gz"), tmp_path)
    assert names(tmp_path) == ["file.gz"]


def test_every_failure_is_told(server, tmp_path):
    urls = [f"{server.url}/absent", "http://127.0.0.1:9/refused"]
    with pytest.raises(FetchError, match="HTTP status 404.*refused: .*refused"):
        fetch(remote(*urls), tmp_path)


def test_mirror_replaces_the_published_addresses(server, tmp_path):
    assert fetch(remote("http://127.0.0.1:9/no"), tmp_path, mirror=server.url + "/")
    assert server.requests == [("set/file.gz", None)]


@pytest.mark.parametrize("mirror", ["file:///etc", "ftp://host", "nonsense"])
def test_mirror_must_be_a_web_address(tmp_path, mirror):
    with pytest.raises(UsageError, match="mirror"):
        fetch(remote(), tmp_path, mirror=mirror)


def test_directory_must_be_writable(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="a directory to write to"):
        fetch(remote(), tmp_path / "file")


def test_downloads_have_checksums_and_places():
    for files in DOWNLOADS.values():
        for file in files:
            assert len(file.md5) == 32 and int(file.md5, 16) >= 0
            assert not file.path.startswith("/") and file.urls
            assert all(url.endswith(file.path.split("/")[-1]) for url in file.urls)
