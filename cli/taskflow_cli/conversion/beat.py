"""The `beat_schedule` of a Celery application as TaskSchedules. Its source is parsed and never run."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from taskflow_cli.conversion.literals import NotConstant, constants_of, name_of, value_of
from taskflow_cli.conversion.schedule import HANDLER, QUEUE, ZONE, Conversion, NoCounterpart, every, manifest
from taskflow_cli.conversion.schedule import name_of as schedule_name

_SCHEDULES = ("beat_schedule", "CELERY_BEAT_SCHEDULE", "CELERYBEAT_SCHEDULE")
_ZONES = ("timezone", "CELERY_TIMEZONE")
_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
_UNITS = {"days": 86400, "seconds": 1, "microseconds": 1e-6, "milliseconds": 1e-3, "minutes": 60, "hours": 3600,
          "weeks": 604800}  # fmt: skip
"""Of `timedelta`, in the order of its arguments."""
_KNOWN = ("task", "schedule", "args", "kwargs", "options", "relative")
_BOUNDS = {"minute": (0, 59), "hour": (0, 23), "day_of_month": (1, 31), "month_of_year": (1, 12), "day_of_week": (0, 6)}
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON = re.compile(r"[0-9A-Za-z*/,-]+")
_MOST_TIMEOUT = {"queueTimeoutSeconds": 2_592_000, "attemptTimeoutSeconds": 604_800}


@dataclass
class _Source:
    """What of the file entries need."""

    names: dict[str, Any]
    zone: str
    taken: set[str] = field(default_factory=set)


def convert(text: str, source: str) -> Conversion:
    """The entries of every beat schedule in a Python file.

    Args:
        text: The source.
        source: Name of the file, for messages.
    """
    done = Conversion()
    try:
        tree = ast.parse(text, source)
    except (SyntaxError, ValueError) as error:
        done.errors.append(f"{source} is no Python: {error}")
        return done
    names = constants_of(tree)
    assigned = list(_assigned(tree))
    known = _Source(names, _zone(assigned, names, done, source))
    schedules = [value for name, value in assigned if name in _SCHEDULES]
    for value in schedules:
        if isinstance(value, ast.Dict):
            for key, entry in zip(value.keys, value.values, strict=True):
                _entry(key, entry, known, done, source)
        else:
            done.errors.append(f"{source}:{value.lineno}: expected a dict, found {ast.unparse(value)[:40]}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) == "add_periodic_task":
            what = "add_periodic_task is not read; write it as an entry of beat_schedule"
            done.errors.append(f"{source}:{node.lineno}: {what}")
    if not schedules and not done.errors:
        done.errors.append(f"{source} has no beat_schedule")
    return done


def _assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Names and values of assignments, of items such as `conf["beat_schedule"]`, and of keyword arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                    yield str(target.slice.value), node.value
                else:
                    yield name_of(target), node.value
        elif isinstance(node, ast.Call):
            # As in app.conf.update(beat_schedule={...}), and Celery(..., timezone="UTC").
            yield from ((keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg in _SCHEDULES + _ZONES)


def _zone(assigned: list[tuple[str, ast.expr]], names: Mapping[str, Any], done: Conversion, source: str) -> str:
    for name, value in assigned:
        if name in _ZONES:
            try:
                zone = value_of(value, names)
            except NotConstant as error:
                done.warnings.append(f"{source}:{value.lineno}: {name}: {error}; times are in Etc/UTC")
                return ""
            if isinstance(zone, str) and ZONE.fullmatch(zone) and zone != "Local":
                return "Etc/UTC" if zone == "UTC" else zone
    return ""


def _entry(key: ast.expr | None, entry: ast.expr, known: _Source, done: Conversion, source: str) -> None:
    where = f"{source}:{entry.lineno}"
    said: list[str] = []
    try:
        name = str(value_of(key, known.names)) if key is not None else ""
        where += f": {name}" if name else ""
        spec = _spec(_fields(name, entry, known), known, said)
    except (NoCounterpart, NotConstant) as error:
        done.errors.append(f"{where}: {error}")
        return
    done.schedules.append(manifest(schedule_name(name, known.taken), spec))
    done.warnings += [f"{where}: {each}" for each in said]


def _fields(name: str, entry: ast.expr, known: _Source) -> dict[str, ast.expr]:
    if not name or not isinstance(entry, ast.Dict):
        raise NoCounterpart(f"expected an entry 'name': {{...}}, found {ast.unparse(entry)[:40]}")
    if None in entry.keys:
        raise NoCounterpart("the entry has another dict within")
    pairs = zip(entry.keys, entry.values, strict=True)
    return {str(value_of(each, known.names)): value for each, value in pairs if each is not None}


def _spec(fields: Mapping[str, ast.expr], known: _Source, said: list[str]) -> dict[str, Any]:
    missing = [name for name in ("task", "schedule") if name not in fields]
    if missing:
        raise NoCounterpart(f"{missing[0]!r} is missing")
    handler = value_of(fields["task"], known.names)
    if not isinstance(handler, str) or not HANDLER.fullmatch(handler):
        raise NoCounterpart(f"{handler!r} cannot be the name of a handler")
    said += [f"{name}: no counterpart" for name in fields if name not in _KNOWN]
    given = {name: value_of(fields[name], known.names) for name in ("args", "kwargs", "options") if name in fields}
    timing = _timing(fields["schedule"], known.names)
    template = {"handler": handler, **_options(given.get("options") or {}, said)}
    for name in ("args", "kwargs"):
        if value := given.get(name):
            _check_json(name, value)
            template[name] = value
    return {
        **timing,
        "timeZone": known.zone if "schedules" in timing else None,
        # Beat does not look whether the last one has ended.
        "concurrencyPolicy": "Allow",
        "taskTemplate": {"spec": template},
    }


def _timing(node: ast.expr, names: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(node, ast.Call):
        kind = name_of(node.func)
        if kind == "crontab":
            return {"schedules": [_crontab(node, names)]}
        if kind == "timedelta":
            return {"every": every(_timedelta(node, names))}
        if kind == "schedule":
            inner = node.args[0] if node.args else next((k.value for k in node.keywords if k.arg == "run_every"), None)
            if inner is not None:
                return _timing(inner, names)
        raise NoCounterpart(f"{kind or 'this schedule'} has no counterpart")
    seconds = value_of(node, names)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise NoCounterpart(f"expected seconds, timedelta or crontab, found {ast.unparse(node)[:40]}")
    return {"every": every(seconds)}


def _timedelta(node: ast.Call, names: Mapping[str, Any]) -> float:
    arguments = dict(zip(_UNITS, node.args, strict=False))
    arguments |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg in _UNITS}
    if len(arguments) != len(node.args) + len(node.keywords):
        raise NoCounterpart(f"cannot read {ast.unparse(node)[:40]}")
    total = 0.0
    for unit, value in arguments.items():
        number = value_of(value, names)
        if not isinstance(number, int | float):
            raise NoCounterpart(f"{unit} is no number")
        total += _UNITS[unit] * number
    return round(total, 6)


def _crontab(node: ast.Call, names: Mapping[str, Any]) -> str:
    # The order of Celery's arguments, not that of cron.
    given = dict(zip(("minute", "hour", "day_of_week", "day_of_month", "month_of_year"), node.args, strict=False))
    for keyword in node.keywords:
        if keyword.arg not in _FIELDS:
            raise NoCounterpart(f"{keyword.arg or '**'} of crontab has no counterpart")
        given[keyword.arg] = keyword.value
    words = {name: _cron_field(name, value_of(given[name], names)) if name in given else "*" for name in _FIELDS}
    # With a star in one of them, */2 too, both have to fit in cron as well.
    if not words["day_of_month"].startswith("*") and not words["day_of_week"].startswith("*"):
        raise NoCounterpart(
            "Celery runs when day_of_month and day_of_week both fit, and cron when one of them does; "
            "leave one out, and let the handler look at the other"
        )
    return " ".join(words[name] for name in _FIELDS)


def _cron_field(name: str, value: Any) -> str:
    parts = value if isinstance(value, list) else [value]
    text = ",".join("".join(str(part).split()) for part in parts)
    if any(isinstance(part, bool) or not isinstance(part, int | str) for part in parts) or not _CRON.fullmatch(text):
        raise NoCounterpart(f"{name} of crontab: expected a number or text of cron, found {value!r}")
    return ",".join(_part(name, part) for part in text.split(","))


def _part(name: str, part: str) -> str:
    """One part of a field: full names of days and months shortened, and a range over the end of its field divided."""
    part = re.sub(r"[A-Za-z]{4,}", lambda word: word[0][:3], part)
    bounds = re.fullmatch(r"(\w+)-(\w+)(/\d+)?", part)
    if bounds is None:
        return part
    first, last = (_number(name, word) for word in bounds.groups()[:2])
    if first is None or last is None or first <= last:
        return part
    if bounds[3]:
        raise NoCounterpart(f"{name} of crontab: {part} goes over the end with steps; write its numbers")
    low, high = _BOUNDS[name]
    return f"{first}-{high},{low}-{last}"


def _number(name: str, word: str) -> int | None:
    if name == "day_of_week" and word.lower() in _DAYS:
        return _DAYS.index(word.lower())
    return int(word) if word.isdecimal() else None


def _options(options: Any, said: list[str]) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        raise NoCounterpart("options is no dict")
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name == "queue" and isinstance(value, str):
            found["queue"] = _queue(value, said)
        elif name == "expires":
            _timeout(found, "queueTimeoutSeconds", name, value, said)
        elif name == "time_limit":
            _timeout(found, "attemptTimeoutSeconds", name, value, said)
        elif name == "priority":
            said.append("options.priority: Celery on Redis serves 0 first, and here 9 is first; set priority yourself")
        else:
            said.append(f"options.{name}: no counterpart")
    return found


def _timeout(found: dict[str, Any], field_name: str, option: str, value: Any, said: list[str]) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= _MOST_TIMEOUT[field_name]:
        said.append(
            f"options.{option}: expected 1 to {_MOST_TIMEOUT[field_name]} seconds for {field_name}, found {value!r}"
        )
    else:
        found[field_name] = int(value)


def _queue(name: str, said: list[str]) -> str:
    if QUEUE.fullmatch(name):
        return name
    new = re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-") or "default"
    said.append(f"options.queue: {name!r} cannot be the name of a queue; it becomes {new!r}")
    return new


def _check_json(field_name: str, value: Any) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise NoCounterpart(f"{field_name} is no JSON: {value!r}") from None
    if not isinstance(value, list if field_name == "args" else dict):
        wanted = "list" if field_name == "args" else "dict"
        raise NoCounterpart(f"{field_name}: expected a {wanted}, found {type(value).__name__}")
    if isinstance(value, dict) and any(not isinstance(key, str) for key in value):
        raise NoCounterpart(f"{field_name} has a key that is no text")
