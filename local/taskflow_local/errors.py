"""The errors that local mode raises.

LocalError
  ProgramMissingError   a program is missing and cannot be downloaded or built
  ComponentFailedError  a component ended or did not become ready
"""


class LocalError(Exception):
    """A problem that a person can fix. The message says what was expected, what was found and what to do."""


class ProgramMissingError(LocalError):
    """A program is not given, installed or cached, and cannot be downloaded or built."""


class ComponentFailedError(LocalError):
    """A component ended early or did not become ready in time. The message ends with the tail of its log."""
