"""Images and videos on disk: which files they are, and how judges see them."""

from glob import glob, has_magic
from pathlib import Path

from beholder import video
from beholder.errors import InputError
from beholder.judges.medium import Medium
from beholder.judges.settings import Kind
from beholder.media import read_image, to_pil
from beholder.video import FrameConfig, read_frames

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def kind_of(path: Path) -> Kind:
    """By the file's ending; what is no known video counts as an image."""
    return "video" if path.suffix.lower() in video.SUFFIXES else "image"


def read_medium(path: Path, frames: FrameConfig | None = None) -> Medium:
    """The picture, or the chosen frames of the video; InputError where it cannot be read."""
    if kind_of(path) == "video":
        return Medium(tuple(read_frames(path, frames)), "video")
    return Medium((to_pil(read_image(path)),))


def find_media(verb: str, paths: list[Path]) -> list[Path]:
    """The files themselves, and the images and videos in folders and under globs, in order."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += [p for p in sorted(path.rglob("*")) if _is_medium(p)]
        elif not path.exists() and has_magic(str(path)):
            found += [p for p in sorted(map(Path, glob(str(path), recursive=True))) if _is_medium(p)]
        else:
            found.append(path)
    if not found:
        raise InputError(f"{verb}: no image or video in {', '.join(map(str, paths)) or 'the arguments'}; name one")
    return found


def _is_medium(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in (*IMAGE_SUFFIXES, *video.SUFFIXES)
