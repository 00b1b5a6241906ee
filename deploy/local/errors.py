"""What can go wrong with a stack, each with a message a person can act on."""

from __future__ import annotations


class StackError(Exception):
    """The stack cannot do what was asked; the message says what to do about it."""


class PortInUseError(StackError):
    """A port the stack was told to use belongs to somebody else."""


class StackRunningError(StackError):
    """Another stack holds the directory."""


class StackNotRunningError(StackError):
    """Nothing runs in the directory."""


class StartFailedError(StackError):
    """A process did not become ready. The message ends with the last lines of its log and the log's path."""
