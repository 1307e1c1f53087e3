"""Hosts by name: the daemon's file defines them, a campaign names one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sotad.activities.registry import ACTIVITIES, ON_HOST, runs_on_host
from sotad.config import load_daemon, parse_campaign
from sotad.config.hosts import HostConfig
from sotad.daemon.hosts import Hosts
from sotad.errors import BadConfig
from sotad.hosts.base import HostError, HostUnreachable
from sotad.hosts.local import LocalHost

SSH = {"kind": "ssh", "address": "gpu1", "root": "/srv/sotad"}


def daemon_file(folder: Path, hosts: Any) -> Path:
    path = folder / "sotad.yaml"
    path.write_text(yaml.safe_dump({"hosts": hosts}))
    return path


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(LocalHost(tmp_path / "runs"), {"gpu1": HostConfig.model_validate(SSH)})


def test_definitions_are_read_with_defaults(tmp_path: Path) -> None:
    """What is left out is as ssh would have it; a host that measures with another Python says so."""
    found = load_daemon(daemon_file(tmp_path, {"gpu1": {**SSH, "tools": "/opt/vllm/bin/python"}})).hosts["gpu1"]
    assert (found.port, found.user, found.python, found.tools) == (None, None, "python3", "/opt/vllm/bin/python")
    assert found.max_clock_offset_s == 60


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ({"gpu1": {"kind": "ssh", "root": "/srv"}}, "kind: ssh needs address"),
        ({"gpu1": {**SSH, "root": "srv"}}, "hosts.gpu1.root"),
        ({"gpu1": {**SSH, "adress": "x"}}, "adress"),
        ({"local": SSH}, "local is taken"),
        ({"GPU 1": SSH}, "lower-case"),
        ({"gpu1": {"kind": "local", "root": "/srv", "address": "x"}}, "takes no address"),
    ],
)
def test_bad_definitions_are_refused_in_one_line(tmp_path: Path, hosts: Any, said: str) -> None:
    """The line names the file and the key."""
    path = daemon_file(tmp_path, hosts)
    with pytest.raises(BadConfig) as refused:
        load_daemon(path)
    (problem,) = refused.value.problems
    assert said in problem and str(path) in problem


def test_an_unknown_host_is_one_clear_error(hosts: Hosts) -> None:
    """It says what the daemon knows; the daemon's own machine and defined ones are fine."""
    hosts.require("local", "c.yaml")
    hosts.require("gpu1", "c.yaml")
    with pytest.raises(BadConfig) as refused:
        hosts.require("gpu2", "c.yaml")
    assert str(refused.value) == (
        "c.yaml: hardware.host: the daemon's sotad.yaml defines no host 'gpu2', but local, gpu1"
    )


def test_a_campaign_names_its_host(example: str, tmp_path: Path) -> None:
    """The name is in the spec that goes on record; what it stands for is not."""
    data = yaml.safe_load(example)
    data["hardware"]["host"] = "gpu1"
    assert parse_campaign(yaml.safe_dump(data), "c.yaml", tmp_path)["hardware"]["host"] == "gpu1"


def test_a_host_is_opened_once_and_anew_when_its_definition_changes(hosts: Hosts) -> None:
    """Jobs share the connection; a changed definition counts from the next job on; one that is gone can come back."""
    first = hosts.named("gpu1")
    assert hosts.named("gpu1") is first and first.name == "gpu1" and not first.here
    hosts.define({"gpu1": HostConfig.model_validate({**SSH, "port": 2222})})
    second = hosts.named("gpu1")
    assert second is not first
    hosts.define({})
    with pytest.raises(HostUnreachable, match="defines no host 'gpu1' any more"):
        hosts.named("gpu1")
    hosts.define({"gpu1": HostConfig.model_validate(SSH)})
    assert hosts.named("gpu1") is not second


def test_a_definition_that_cannot_be_meant_names_the_host() -> None:
    """The error is of the host, in one line."""
    hosts = Hosts(LocalHost(Path("/nowhere")), {"gpu1": HostConfig.model_validate({**SSH, "root": "/srv/../etc"})})
    with pytest.raises(HostError, match=r"host gpu1: root '/srv/\.\./etc'"):
        hosts.named("gpu1")


def spec(**target: Any) -> dict[str, Any]:
    frameworks = {"a": {"role": "target", "tests_on": "daemon", **target}, "b": {"role": "competitor"}}
    return {"hardware": {"host": "gpu1"}, "frameworks": frameworks}


def test_what_serves_and_measures_runs_there_and_nothing_else(hosts: Hosts) -> None:
    """Agents, gates, analyses and the tests of a patch stay with the daemon, unless the tests need the GPUs."""
    there = {activity for activity in ACTIVITIES if hosts.of(spec(), activity) is not hosts.home}
    assert there == ON_HOST and "implement" not in there and "review" not in there
    for tests in ("run_base_tests", "run_tests"):
        assert not runs_on_host(spec(), tests) and runs_on_host(spec(tests_on="host"), tests)
