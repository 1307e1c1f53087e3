"""The error tree: whose fault, which exit status, which code."""

from __future__ import annotations

import errno

import pytest

import ledger.errors as ledger_errors
from ledger.artifacts import NoArtifact
from ledger.keys import BadKey
from sotad import errors
from sotad.errors import SotadError, of
from sotad.hosts.base import HostError
from statemachine.machine import IllegalEvent


def tree(kind: type[SotadError] = SotadError) -> list[type[SotadError]]:
    """The classes of ``sotad.errors``, base first."""
    return [
        kind,
        *(below for child in kind.__subclasses__() if child.__module__ == "sotad.errors" for below in tree(child)),
    ]


def test_every_class_has_a_code_of_its_own_and_a_place_in_the_docstring() -> None:
    """Codes are how programs tell errors apart; the drawing is complete."""
    classes = tree()
    assert len({kind.code for kind in classes}) == len(classes) == 13
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in classes)


def test_exit_statuses_are_those_that_the_docstring_draws() -> None:
    """The exit status follows from whose fault it is."""
    drawn = {"CandidateFault": 1, "EngineFault": 1, "HostFault": 2, "Unreachable": 3, "OperatorFault": 2}
    drawn |= {"BadConfig": 2, "NotFound": 2, "IllegalNow": 2, "Forbidden": 2, "IntegrityFault": 1, "Bug": 4}
    for name, status in drawn.items():
        assert getattr(errors, name).exit_status == status
        line = next(line for line in (errors.__doc__ or "").splitlines() if f"+-- {name} " in line)
        assert "exit" not in line or line.endswith(f"exit {status}")


def test_bad_config_keeps_its_problems() -> None:
    """Every mistake in a file is told, not only the first."""
    error = errors.BadConfig(["a.yaml: x: wrong", "a.yaml: y: wrong"])
    assert error.as_json()["problems"] == ["a.yaml: x: wrong", "a.yaml: y: wrong"]
    assert str(error) == "a.yaml: x: wrong; a.yaml: y: wrong"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ledger_errors.InvalidEvent("x"), errors.BadInput),
        (ledger_errors.Conflict("x"), errors.IllegalNow),
        (ledger_errors.KeyReused("x"), errors.IllegalNow),
        (ledger_errors.Deposed("x"), errors.HostFault),
        (ledger_errors.Unwritable("x"), errors.HostFault),
        (ledger_errors.NotFound("x"), errors.NotFound),
        (ledger_errors.NotALedger("x"), errors.BadInput),
        (ledger_errors.WrongSchema("x"), errors.BadInput),
        (ledger_errors.Corrupt("x"), errors.IntegrityFault),
        (NoArtifact("x"), errors.IntegrityFault),
        (BadKey("x"), errors.BadInput),
        (IllegalEvent("c", "draft", "gap.decided", "phase", "round.gap"), errors.IllegalNow),
        (HostError("x"), errors.HostFault),
        (FileNotFoundError(errno.ENOENT, "No such file", "/nope"), errors.NotFound),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), errors.BadInput),
        (OSError(errno.ENOSPC, "No space left on device"), errors.HostFault),
        (ZeroDivisionError("x"), errors.Bug),
    ],
)
def test_errors_of_other_packages_find_their_place(error: Exception, kind: type[SotadError]) -> None:
    """The daemon's and the command's top level know every error of the packages below."""
    assert type(of(error)) is kind


def test_a_ledger_error_keeps_its_code_and_its_own_advice() -> None:
    """The ledger's codes are stable too, and its messages say already what to do."""
    found = of(ledger_errors.NotALedger("x: not a ledger; give another"))
    assert (found.code, found.next) == ("not_a_ledger", "")


def test_an_error_of_ours_is_returned_as_it_is() -> None:
    """Nothing is wrapped twice."""
    error = errors.Forbidden("no")
    assert of(error) is error
