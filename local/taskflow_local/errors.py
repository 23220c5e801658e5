"""What local mode raises to its caller.

LocalError
  ProgramMissingError   a program is not there and cannot be made here
  ComponentFailedError  a component ended or did not become ready
"""


class LocalError(Exception):
    """Something a person can fix; the message says what was expected, what was found and what to do."""


class ProgramMissingError(LocalError):
    """A program is neither given, installed, cached, downloadable nor buildable."""


class ComponentFailedError(LocalError):
    """A component ended early or did not become ready in time; the message ends with the tail of its log."""
