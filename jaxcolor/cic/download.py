"""Fetching released weights: download with resume, verify, convert, cache."""

from dataclasses import dataclass
from pathlib import Path

import requests
from tqdm import tqdm

from jaxcolor.cic.convert import convert_checkpoint, file_sha256, require_torch
from jaxcolor.cic.weights import RELEASED, cache_directory, load_weights, weights_path
from jaxcolor.errors import InputError


@dataclass(frozen=True)
class Release:
    """One published checkpoint: where it is, what it must be, and what its manifest says."""

    url: str
    size: int
    sha256: str
    license: str
    origin: str
    training: str
    width: float = 1.0
    # Whether the annealing factor 2.606 is part of the published numbers is not documented; 1 takes them as
    # they are.
    logit_scale: float = 1.0


REGISTRY = {
    "zhang2016": Release(
        url="https://colorizers.s3.us-east-2.amazonaws.com/colorization_release_v2-9b330a0b.pth",
        size=128_976_165,
        sha256="9b330a0bae53f4ded77b1e23defbf78beaa09c10ebc4c4999e8e4f4a160b93f9",
        license="BSD-2-Clause (c) 2016 Richard Zhang, Phillip Isola, Alexei A. Efros",
        origin="Zhang, Isola, Efros, Colorful Image Colorization, ECCV 2016; release v2",
        training="by its authors on ImageNet (1.3 million photos), with class rebalancing",
    )
}
assert set(REGISTRY) == set(RELEASED)

_ATTEMPTS = 5
_CHUNK = 1 << 16  # what an interruption may lose
_TIMEOUT = 30.0  # seconds without a byte


def fetch(name: str = "zhang2016", *, url: str | None = None, force: bool = False, progress: bool = True) -> Path:
    """Download released weights, verify and convert them, and keep them in the user's cache; returns the file.

    Weights that are already there and sound are not fetched again. An interrupted download is resumed by the
    next call. Size and SHA-256 are those of the official file, whatever the address.

    Args:
        name: a released name; ``"zhang2016"`` is a download of 129 MB.
        url: a mirror to use instead of the official address.
        force: fetch again even if the weights are there.
        progress: show a progress bar on standard error.

    Raises:
        InputError: an unknown name, torch missing (said before anything is downloaded), no network, a server
            that sends something else, no space.

    >>> path = fetch("zhang2016")                                               # doctest: +SKIP
    """
    if name not in REGISTRY:
        raise InputError(f"cannot fetch weights {name!r}: expected one of {', '.join(REGISTRY)}")
    target = weights_path(name)
    if not force and _sound(target):
        return target
    require_torch()
    checkpoint = _checkpoint_path(name)
    try:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        download(REGISTRY[name], url or REGISTRY[name].url, checkpoint, progress=progress)
        install(checkpoint, name)
    except OSError as error:
        raise InputError(
            f"cannot keep weights in {cache_directory()}: {error}; set JAXCOLOR_CACHE to another folder"
        ) from error
    checkpoint.unlink()
    return target


def install(checkpoint: Path, name: str) -> Path:
    """Convert a checkpoint of a released name, already verified, into the cache."""
    release, target = REGISTRY[name], weights_path(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    manifest = {
        "name": name,
        "source": release.url,
        "origin": release.origin,
        "license": release.license,
        "training": release.training,
        "logit_scale": release.logit_scale,
    }
    convert_checkpoint(checkpoint, target, width=release.width, manifest=manifest)
    return target


def released_name(checkpoint: Path) -> str | None:
    """The released name that this file is the checkpoint of, by size and SHA-256; None for any other file."""
    for name, release in REGISTRY.items():
        if _size(checkpoint) == release.size and file_sha256(checkpoint) == release.sha256:
            return name
    return None


def download(release: Release, url: str, path: Path, *, progress: bool = True) -> None:
    """Bring the file of a release to ``path``, complete and verified.

    Bytes are collected in ``path`` + ``.part``, which survives an interruption and is resumed, now or by the
    next call, if the server can do that. ``path`` itself exists only once size and SHA-256 are right.
    """
    if _size(path) == release.size and file_sha256(path) == release.sha256:
        return
    part = path.with_name(path.name + ".part")
    for attempt in range(_ATTEMPTS):
        before = _size(part)
        try:
            _collect(release, url, part, progress)
        except requests.RequestException as error:
            # A transfer that got further is worth another attempt; a server that is not there is not.
            if _size(part) > before and attempt < _ATTEMPTS - 1:
                continue
            raise InputError(_unreachable(url, path.stem, error)) from error
        actual = file_sha256(part)
        if actual == release.sha256:
            part.replace(path)
            return
        part.unlink()
        # A resumed file may have begun with the bytes of another one: start once more from nothing.
        if before == 0 or attempt == _ATTEMPTS - 1:
            raise InputError(
                f"{url} sent a file with SHA-256 {actual}, expected {release.sha256}; it was deleted: "
                "try again, or another address with --url"
            )


def _collect(release: Release, url: str, part: Path, progress: bool) -> None:
    """Append to ``part`` what is missing up to the size of the release."""
    have = _size(part)
    if have == release.size:
        return
    if have > release.size:
        have = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        answer.raise_for_status()
        if answer.status_code != requests.codes.partial_content:
            have = 0  # the server cannot resume and sends everything
        announced = answer.headers.get("Content-Length")
        if announced is not None and have + int(announced) != release.size:
            raise InputError(
                f"{url} has a file of {have + int(announced)} bytes, expected {release.size}: "
                "try another address with --url"
            )
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(total=release.size, initial=have, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            for chunk in answer.iter_content(_CHUNK):
                file.write(chunk[: release.size - have])
                have += len(chunk)
                bar.update(len(chunk))
                if have > release.size:
                    break
    if have < release.size:
        raise requests.ConnectionError(f"connection closed after {have} of {release.size} bytes")


def _unreachable(url: str, name: str, error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError):
        return f"the server says: {error}; try another address with --url"
    # Only the innermost error names the cause; the outer ones repeat the address and object addresses.
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return (
        f"cannot download {url} ({cause}); check the network (proxies: HTTPS_PROXY) and run the command again, "
        "it resumes; or download that file on another machine, copy it here and run: "
        f"jaxcolor weights convert FILE, which keeps it as {name}"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _checkpoint_path(name: str) -> Path:
    return cache_directory() / "downloads" / f"{name}.pth"


def _sound(path: Path) -> bool:
    try:
        load_weights(path)
    except InputError:
        return False
    return True
