"""Settings of a server; imports nothing heavy. The line under a field is its help text."""

from dataclasses import dataclass

from beholder.errors import InputError


@dataclass(frozen=True)
class ServeConfig:
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every network. Set BEHOLDER_TOKEN then: who does not send it is refused."""
    port: int = 8000
    """0 takes a free one and prints it."""
    batch: int = 16
    """Images that are scored together, whoever sent them."""
    linger_ms: float = 5.0
    """Milliseconds that an idle worker waits for more images before it begins."""
    queue: int = 1024
    """Images that may wait; further requests are answered 503 with Retry-After."""
    body_mb: int = 64
    """MiB of one request at most (413)."""
    held_mb: int = 512
    """MiB of all requests in memory at once; further ones are answered 503."""
    pixels: int = 2**24
    """Pixels of one image, or of all frames of a video, at most; a larger one fails alone."""
    timeout: float = 120.0
    """Seconds from the end of a request's upload until it is answered 504."""
    upload: float = 30.0
    """Seconds a client has to send its headers, and again its body (408)."""
    batch_timeout: float = 300.0
    """Seconds the worker has for one batch; then it is killed and started again."""


def check(config: ServeConfig) -> None:
    """InputError for settings that make no sense."""
    for name in ("batch", "queue", "body_mb", "held_mb", "pixels", "timeout", "upload", "batch_timeout"):
        if not getattr(config, name) > 0:
            raise InputError(f"{name.replace('_', '-')}: {getattr(config, name)} must be greater than 0")
    if config.linger_ms < 0:
        raise InputError(f"linger-ms: {config.linger_ms} must not be negative")
    if not 0 <= config.port < 65536:
        raise InputError(f"port: {config.port} is not in 0..65535")
    if config.body_mb > config.held_mb:
        raise InputError(f"body-mb: {config.body_mb} is more than held-mb, {config.held_mb}; raise held-mb")
