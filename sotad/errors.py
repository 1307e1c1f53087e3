"""What can go wrong, by whose fault it is: the loop's next move and a command's exit status follow from that.

    SotadError
    +-- CandidateFault    the configuration or patch under test is bad: record it, try the next oneexit 1
    +-- EngineFault       a serving framework misbehaved: record it, retry within the bound       exit 1
    +-- HostFault         disk, network, GPU or permissions: stop here until a person has looked  exit 2
    |   +-- Unreachable     no daemon answers                                                     exit 3
    +-- OperatorFault     what was asked for cannot be done as asked: nothing was changed         exit 2
    |   +-- BadInput        an argument, a file or a request body is wrong
    |   |   +-- BadConfig     a configuration file is, in the listed places
    |   +-- NotFound        there is no such campaign, event or file
    |   +-- IllegalNow      the campaign's present phase or evidence does not allow it
    |   +-- Forbidden       the caller may not ask this daemon
    +-- IntegrityFault    a ledger or artifact contradicts itself: never retried                  exit 1
    +-- Bug               everything else: please report it                                       exit 4

Standard library only. :func:`of` gives errors of the other packages their place in the tree.
"""

from __future__ import annotations

from collections.abc import Sequence


class SotadError(Exception):
    """Base of the tree. ``str()`` says what and where, ``next`` what to do; ``code`` stays stable."""

    code = "error"
    exit_status = 4
    next = ""

    def __init__(self, message: str, next: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.next = self.next if next is None else next
        self.code = code or self.code

    def as_json(self) -> dict[str, object]:
        """The error as the API and ``--json`` show it."""
        shown = {"code": self.code, "message": str(self), "next": self.next, "exit_status": self.exit_status}
        return {"error": shown}


class CandidateFault(SotadError):
    """The configuration or patch under test is bad."""

    code = "candidate"
    exit_status = 1
    next = "look at its log: the campaign goes on with the next candidate"


class EngineFault(SotadError):
    """A serving framework misbehaved."""

    code = "engine"
    exit_status = 1
    next = "look at the server's log"


class HostFault(SotadError):
    """The machine does not do what it must."""

    code = "host"
    exit_status = 2
    next = "run `sotactl doctor`"


class Unreachable(HostFault):
    """No daemon answers."""

    code = "unreachable"
    exit_status = 3
    next = "start it with `sotad start --detach`, or name its state directory with --dir"


class OperatorFault(SotadError):
    """What was asked for cannot be done as asked; nothing was changed."""

    code = "operator"
    exit_status = 2


class BadInput(OperatorFault):
    """An argument, a file or a request body is wrong."""

    code = "bad_input"


class BadConfig(BadInput):
    """A configuration is wrong in the places that ``problems`` lists, one line each."""

    code = "bad_config"
    next = "correct the file, then check it with `sotad validate`"

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))

    def as_json(self) -> dict[str, object]:
        """The error with its problems one by one."""
        return {**super().as_json(), "problems": self.problems}


class NotFound(OperatorFault):
    """There is no such campaign, event or file."""

    code = "not_found"
    next = "list what there is with `sotactl status`"


class IllegalNow(OperatorFault):
    """The campaign's present phase or evidence does not allow it."""

    code = "illegal_now"
    next = "see where the campaign stands with `sotactl status CAMPAIGN`"


class Forbidden(OperatorFault):
    """The caller may not ask this daemon."""

    code = "forbidden"
    next = "ask as the user who runs the daemon, or over TCP with the token in keys/api.token"


class IntegrityFault(SotadError):
    """A ledger or artifact contradicts itself."""

    code = "integrity"
    exit_status = 1
    next = "keep the files as they are and run `sotactl ledger verify`"


class Bug(SotadError):
    """Our own mistake."""

    code = "bug"
    next = "please report it, with the daemon's log"


_LEDGER: dict[str, type[SotadError]] = {
    "invalid_event": BadInput,
    "conflict": IllegalNow,
    "key_reused": IllegalNow,
    "deposed": HostFault,
    "unwritable": HostFault,
    "not_found": NotFound,
    "not_a_ledger": BadInput,
    "wrong_schema": BadInput,
    "bad_key": BadInput,
    "no_artifact": IntegrityFault,
    "corrupt": IntegrityFault,
}


def of(error: BaseException) -> SotadError:
    """The place of any error in the tree; what nobody expected is a :class:`Bug`."""
    if isinstance(error, SotadError):
        return error
    if isinstance(error, OSError):
        return _system(error)
    return _foreign(error) or Bug(f"{type(error).__name__}: {error}")


def _system(error: OSError) -> SotadError:
    """A path that somebody named is their input; the rest is the machine's doing."""
    reason = error.strerror or str(error)
    if error.filename is None:
        return HostFault(reason)
    advice = "check the path and who may use it"
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{error.filename}: {reason}", "check the path")
    return BadInput(f"{error.filename}: {reason}", advice)


def _foreign(error: BaseException) -> SotadError | None:
    """Errors of the packages below us; imported here because only a failing command needs them."""
    from ledger.errors import LedgerError

    if isinstance(error, LedgerError):
        return _LEDGER.get(error.code, IntegrityFault)(str(error), "", error.code)
    from statemachine.machine import IllegalEvent

    if isinstance(error, IllegalEvent):
        return IllegalNow(str(error))
    from sotad.hosts.base import HostError

    return HostFault(str(error), "") if isinstance(error, HostError) else None
