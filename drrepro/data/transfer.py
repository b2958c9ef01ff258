"""Download one file over HTTP: broken transfers are taken up again where they ended."""

import http.client
import ssl
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from drrepro.errors import RunError
from drrepro.progress import Report

TIMEOUT = 60.0  # s without a byte
ATTEMPTS = 5  # in a row that bring nothing new
PAUSE = 1.0  # s after the first failure, doubled after each further one
CHUNK = 2**20


def download(url: str, path: Path, size: int, report: Report, exact: bool = True) -> None:
    """Write ``url`` to ``path``, which appears when it has all ``size`` bytes; until then they are in <path>.part.

    Not ``exact``: ``size`` is the most that is taken, and the server says where the file ends. Raises RunError when it
    refuses, has a file of another size, or again and again brings nothing new.
    """
    part, version = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.version")
    _fill(url, part, version, size, report, exact)
    part.rename(path)
    version.unlink(missing_ok=True)


def _fill(url: str, part: Path, version: Path, size: int, report: Report, exact: bool) -> None:
    failures, best = 0, file_size(part)
    while True:
        try:
            return _transfer(url, part, version, size, report, exact)
        except (URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            code = error.code if isinstance(error, HTTPError) else 0
            if code == 416:  # what is here is not a beginning of what is there
                part.unlink(missing_ok=True)
            elif 400 <= code < 500 and code not in (408, 429):
                raise RunError(f"{url}: {error}; choose another --mirror") from None
            failures = 0 if file_size(part) > best else failures + 1
            best = max(best, file_size(part))
            if failures >= ATTEMPTS:
                raise RunError(
                    f"{url}: {error} ({file_size(part):,} of {size:,} bytes are here; the same command goes on, "
                    "--mirror asks another server)"
                ) from None
            time.sleep(PAUSE * 2**failures)


def _transfer(url: str, part: Path, version: Path, size: int, report: Report, exact: bool) -> None:
    """Make one request for what is missing of ``part``. Raises RunError when the server has another size."""
    have = file_size(part)
    if have >= size and exact:
        return
    request = Request(url, headers={"User-Agent": "drrepro", **({"Range": f"bytes={have}-"} if have else {})})
    with urlopen(request, timeout=TIMEOUT) as response:
        headers = response.headers
        served = headers.get("ETag") or headers.get("Last-Modified") or ""
        partial = response.status == 206
        stated = headers.get("Content-Range" if partial else "Content-Length") or "*"
        whole = stated.rsplit("/", 1)[-1]
        if exact and whole not in ("*", str(size)):
            raise RunError(f"{url}: has {whole} bytes, not the published {size:,}; choose another --mirror")
        end = size if exact else int(whole) if whole.isdecimal() else None
        if not partial:  # the first request, or the server knows no ranges
            have = 0
        elif not (stated.startswith(f"bytes {have}-") and version.exists() and version.read_text() == served):
            part.unlink(missing_ok=True)
            raise ConnectionError("the file has changed on the server")
        with part.open("ab" if have else "wb") as file:
            version.write_text(served)
            while have != end and (chunk := response.read(CHUNK if end is None else min(CHUNK, end - have))):
                have += file.write(chunk)
                if have > size:
                    part.unlink()
                    version.unlink()
                    raise RunError(f"{url}: has more than the {size:,} bytes expected; choose another --mirror")
                report_bytes(report, f"fetch {part.stem}", have, end or size)
    if end is not None and have < end:
        raise ConnectionError(f"the transfer broke off at {have:,} of {end:,} bytes")


def file_size(path: Path) -> int:
    """Return the bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def report_bytes(report: Report, stage: str, done: int, total: int) -> None:
    """Report in megabytes."""
    report(f"{stage}, MB", done // 10**6, max(1, total // 10**6), {})
