"""Fetching official files: verified, resumable, never half under their final name."""

import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from shared.data.catalog import Remote
from shared.errors import UsageError

_CHUNK = 1 << 18
_ATTEMPTS = 3


class FetchError(RuntimeError):
    """A file that could not be fetched, told in one line."""


def fetch(
    file: Remote,
    data_dir: Path,
    *,
    mirror: str | None = None,
    progress: bool = True,
    timeout: float | int = 30,
) -> bool:
    """Fetch one file, unless it is already there with its published checksum.

    What arrives is collected in a `.part` file beside the target, which a later call
    continues. It takes the final name only when its checksum is right; a file of that
    name with another checksum is replaced then.

    Args:
        file: what to fetch.
        data_dir: where `file.path` belongs; folders are made.
        mirror: a base address that serves files under their `path`, tried instead of
            the published addresses.
        progress: show a bar when standard error is a terminal.
        timeout: seconds without an answer after which an address is given up.

    Returns:
        Whether anything was transferred.

    Raises:
        UsageError: for a directory that cannot be written or a wrong mirror.
        FetchError: naming each address and why it failed.
    """
    target = data_dir / file.path
    if target.is_file() and checksum(target) == file.md5:
        return False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{data_dir} ({error.strerror})"
        raise UsageError("data_dir", reason, "a directory to write to") from None
    part = target.with_name(target.name + ".part")
    problems = []
    for url in _addresses(file, mirror):
        problem = _try(url, part, file.md5, progress, timeout)
        if problem is None:
            os.replace(part, target)
            return True
        problems.append(f"{url}: {problem}")
    raise FetchError(f"{file.path} could not be fetched. {'; '.join(problems)}")


def checksum(path: Path) -> str:
    """Return the MD5 of a file as hexadecimal digits."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest()


def _addresses(file: Remote, mirror: str | None) -> tuple[str, ...]:
    if mirror is None:
        return file.urls
    if urllib.parse.urlsplit(mirror).scheme not in ("http", "https"):
        raise UsageError("mirror", mirror, "an http or https address")
    return (f"{mirror.rstrip('/')}/{file.path}",)


def _try(
    url: str, part: Path, md5: str, progress: bool, timeout: float | int
) -> str | None:
    """Complete `part` from one address; return what went wrong, or None."""
    problem = "no answer"
    for _ in range(_ATTEMPTS):
        before = _length(part)
        try:
            _transfer(url, part, progress, timeout)
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = " ".join(str(getattr(error, "reason", error)).split())
            if isinstance(error, urllib.error.HTTPError):
                problem = f"HTTP status {error.code}"
            # A connection that broke after some bytes is worth another attempt.
            if _length(part) > before:
                continue
            return problem
        if checksum(part) == md5:
            return None
        part.unlink()
        problem = f"its checksum differs from the published {md5}"
        if before == 0:
            return problem
    return problem


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(url: str, part: Path, progress: bool, timeout: float | int) -> None:
    """Append what is missing of `part`, or write it anew if the server can't."""
    start = _length(part)
    headers = {"User-Agent": "five-nets", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        # Nothing beyond what is here: the checksum decides whether it is whole.
        if error.code == 416 and start:
            return
        raise
    with response:
        given = response.headers.get("Content-Range", "")
        resumes = response.status == 206 and given.startswith(f"bytes {start}-")
        start = start if resumes else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with part.open("ab" if resumes else "wb") as stream:
            _copy(response, stream, part.stem, start, total, progress)
    if total is not None and _length(part) < total:
        raise ConnectionError(f"broke off after {_length(part):,} of {total:,} bytes")


def _copy(
    response: Any, stream: Any, name: str, start: int, total: int | None, progress: bool
) -> None:
    from tqdm import tqdm

    # `None` switches the bar off where standard error is not a terminal.
    with tqdm(
        desc=name,
        initial=start,
        total=total,
        unit="B",
        unit_scale=True,
        disable=None if progress else True,
    ) as bar:
        while chunk := response.read(_CHUNK):
            stream.write(chunk)
            bar.update(len(chunk))
