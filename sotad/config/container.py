"""The ``container`` section of a host: commands run in docker or podman instead of on the machine itself."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from sotad.config.section import Section

DIGEST = re.compile(r"([^\s@]+@)?sha256:[0-9a-f]{64}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
SIZE = re.compile(r"[1-9][0-9]*[bkmg]?", re.IGNORECASE)
LIMIT = re.compile(r"(-1|[0-9]+)(:(-1|[0-9]+))?")


def _absolute(path: str) -> str:
    if not path.startswith("/") or {":", ",", "\n"} & set(path):
        raise ValueError(f"{path!r} must be an absolute path without ':' and ','")
    return path


AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class Mount(Section):
    """A folder of the host in the container, at the same path unless ``target`` says another."""

    source: AbsolutePath
    target: AbsolutePath = ""
    read_only: bool = False


def _mount(written: object) -> object:
    """A path alone is mounted at the same place, for writing."""
    return {"source": written} if isinstance(written, str) else written


class Container(Section):
    """How commands are run in a container.

    ``run`` starts one for each command, from an ``image`` by digest, and removes it; ``exec`` enters the running
    container ``name``. ``gpus``: the leased ones, all, or none. ``command`` is the runtime with its own options. The
    run's folder and the campaign's are mounted at their own paths, ``mounts`` come on top. ``network: host`` lets the
    load generator reach the server on the loopback address. Secrets are those of the frameworks' ``env_from``.
    """

    runtime: Literal["docker", "podman"]
    mode: Literal["run", "exec"] = "run"
    image: str = ""
    name: str = ""
    command: list[str] = Field(default=[])
    gpus: Literal["leased", "all", "none"] = "leased"
    devices: list[AbsolutePath] = Field(default=[])
    shm_size: str = ""
    ulimits: dict[str, str | int] = Field(default={})
    mounts: list[Annotated[Mount, BeforeValidator(_mount)]] = Field(default=[])
    network: str = "host"
    user: str = ""
    init: bool = True

    @field_validator("image")
    @classmethod
    def _by_digest(cls, image: str) -> str:
        if image and not DIGEST.fullmatch(image):
            raise ValueError(
                f"{image!r} does not name one image for ever: write NAME@sha256:DIGEST, "
                "as `docker|podman images --digests` shows it"
            )
        return image

    @field_validator("shm_size")
    @classmethod
    def _size(cls, size: str) -> str:
        if size and not SIZE.fullmatch(size):
            raise ValueError(f"{size!r} is no size: write bytes, or a number with k, m or g, such as 16g")
        return size

    @field_validator("ulimits")
    @classmethod
    def _limits(cls, limits: dict[str, str | int]) -> dict[str, str | int]:
        wrong = [f"{name}: {limit}" for name, limit in limits.items() if not LIMIT.fullmatch(str(limit))]
        if wrong:
            raise ValueError(f"no limits: {', '.join(wrong)}; write SOFT or SOFT:HARD, -1 for none")
        return limits

    @model_validator(mode="after")
    def _mode(self) -> Container:
        needed, other = ("image", "name") if self.mode == "run" else ("name", "image")
        if not getattr(self, needed):
            raise ValueError(f"mode {self.mode} needs {needed}")
        if getattr(self, other):
            raise ValueError(f"mode {self.mode} takes no {other}")
        if self.name and not NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} is no container's name or id")
        made = ("devices", "shm_size", "ulimits", "mounts")
        if self.mode == "exec" and (given := [key for key in made if getattr(self, key)]):
            raise ValueError(
                f"{', '.join(given)} cannot change in a container that runs already: set them where it starts"
            )
        return self
