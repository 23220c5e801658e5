"""CronJobs as TaskSchedules: when, how often and how many are the same; what a container does becomes a handler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from taskflow_cli.conversion.schedule import HANDLER, MAX_NAME, Conversion, NoCounterpart, manifest, present, timing_of

_POD = "spec.jobTemplate.spec.template"
_MOST_HISTORY = 100
_MOST_ATTEMPTS = 100
_OF_CONTAINERS = ("env", "envFrom", "resources", "volumeMounts")
_OF_PODS = (
    "serviceAccountName",
    "nodeSelector",
    "tolerations",
    "affinity",
    "volumes",
    "imagePullSecrets",
    "securityContext",
)
_SPEC = {
    "concurrencyPolicy",
    "suspend",
    "schedule",
    "timeZone",
    "startingDeadlineSeconds",
    "successfulJobsHistoryLimit",
    "failedJobsHistoryLimit",
    "jobTemplate",
}
_JOB = {"activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "parallelism", "completions", "template"}
_DEFAULTS = {"completionMode": "NonIndexed", "suspend": False, "manualSelector": False}


def convert(documents: list[Any], handler: str, source: str) -> Conversion:
    """The CronJobs among the documents of a file, a `List` included.

    Args:
        documents: What YAML or JSON has.
        handler: The handler of the Tasks; empty: named like the CronJob.
        source: Name of the file, for messages.
    """
    whole = Conversion()
    found = [each for document in documents for each in _items(document)]
    for each in found:
        if isinstance(each, Mapping) and each.get("kind") == "CronJob" and isinstance(each.get("metadata"), Mapping):
            whole.add(_converted(each, handler))
        else:
            kind = each.get("kind") if isinstance(each, Mapping) else type(each).__name__
            whole.errors.append(f"{source}: expected a CronJob, found {kind}")
    if not found:
        whole.errors.append(f"{source} has no CronJob")
    return whole


def _items(document: Any) -> Iterator[Any]:
    if isinstance(document, Mapping) and str(document.get("kind", "")).endswith("List"):
        yield from document.get("items") or ()
    elif document is not None:
        yield document


def _converted(job: Mapping[str, Any], handler: str) -> Conversion:
    meta, spec = job["metadata"], _mapping(job.get("spec"))
    name = str(meta.get("name") or "")
    done = Conversion()
    if not name or len(name) > MAX_NAME:
        done.errors.append(f"CronJob {name!r}: its name has to have 1 to {MAX_NAME} characters")
        return done
    try:
        timing = timing_of(str(spec.get("schedule") or ""))
        _check_days(timing)
    except NoCounterpart as error:
        done.errors.append(f"CronJob {name}: spec.schedule: {error}")
        return done
    said: list[str] = []
    zone = spec.get("timeZone") or timing.get("timeZone")
    if not zone and "every" not in timing:
        said.append("spec.timeZone: the zone was that of the kube-controller-manager; now it is Etc/UTC")
    template = _mapping(spec.get("jobTemplate"))
    if not handler:
        handler = _handler(name)
        said.append(
            f"{_POD}: a Task runs a handler of a worker, not a container; "
            f"write the handler {handler!r}, or name another one with --handler"
        )
    whole = {
        **timing,
        "timeZone": zone,
        # Not the default of a TaskSchedule.
        "concurrencyPolicy": spec.get("concurrencyPolicy") or "Allow",
        "startingDeadlineSeconds": _deadline(spec, said),
        "suspend": spec.get("suspend") or None,
        "successfulHistoryLimit": _history(spec, "successfulJobsHistoryLimit", 3),
        "failedHistoryLimit": _history(spec, "failedJobsHistoryLimit", 1),
        "taskTemplate": _template(template, handler, said),
    }
    said += [f"spec.{field}: no counterpart" for field in spec if field not in _SPEC]
    kept = {field: meta.get(field) for field in ("namespace", "labels")}
    done.schedules.append(manifest(name, whole, kept))
    done.warnings += [f"CronJob {name}: {each}" for each in said]
    return done


def _check_days(timing: Mapping[str, Any]) -> None:
    """Of `*/2` with a weekday, a CronJob runs when one of the two fits, a TaskSchedule when both do, as in cron."""
    words = str((timing.get("schedules") or [""])[0]).split()
    if len(words) == 5 and "*" not in (words[2], words[4]) and any(words[each].startswith("*") for each in (2, 4)):  # noqa: PLR2004
        both = f"{words[2]} and {words[4]}"
        raise NoCounterpart(f"{both}: a CronJob runs when one of the two fits, a TaskSchedule when both do")


def _template(template: Mapping[str, Any], handler: str, said: list[str]) -> dict[str, Any]:
    job = _mapping(template.get("spec"))
    attempts = int(job.get("backoffLimit", 6)) + 1
    if attempts > _MOST_ATTEMPTS:
        said.append(f"spec.jobTemplate.spec.backoffLimit: at most {_MOST_ATTEMPTS} attempts")
    many = [field for field in ("parallelism", "completions") if job.get(field, 1) != 1]
    said += [f"spec.jobTemplate.spec.{field}: a Task runs once; for many items see spec.array of it" for field in many]
    for field, value in job.items():
        if field not in _JOB and (field not in _DEFAULTS or value != _DEFAULTS[field]):
            said.append(f"spec.jobTemplate.spec.{field}: no counterpart")
    _pod(_mapping(job.get("template")), said)
    spec = {
        "handler": handler,
        "activeDeadlineSeconds": job.get("activeDeadlineSeconds"),
        "ttlSecondsAfterFinished": job.get("ttlSecondsAfterFinished"),
        "retryPolicy": {"maxAttempts": min(attempts, _MOST_ATTEMPTS)},
    }
    labels = {field: _mapping(template.get("metadata")).get(field) for field in ("labels", "annotations")}
    return present({"metadata": present(labels), "spec": present(spec)})


def _pod(template: Mapping[str, Any], said: list[str]) -> None:
    """Names what of the pod a pool has to have, since its workers run the handler."""
    spec = _mapping(template.get("spec"))
    containers = [each for each in spec.get("containers") or () if isinstance(each, Mapping)]
    needed = sorted({field for each in containers for field in _OF_CONTAINERS if each.get(field)})
    needed += [field for field in _OF_PODS if spec.get(field)]
    if needed:
        said.append(f"{_POD}.spec: set in the WorkerPool whose workers run the handler: {', '.join(needed)}")
    if len(containers) > 1 or spec.get("initContainers"):
        said.append(f"{_POD}.spec: further containers and initContainers have no counterpart")


def _deadline(spec: Mapping[str, Any], said: list[str]) -> Any:
    seconds = spec.get("startingDeadlineSeconds")
    if seconds == 0:
        said.append("spec.startingDeadlineSeconds: 0 never runs anything; set to 1")
        return 1
    return seconds


def _history(spec: Mapping[str, Any], field: str, default: int) -> int:
    return min(int(spec.get(field, default)), _MOST_HISTORY)


def _handler(name: str) -> str:
    text = name.replace("-", "_")
    return text if HANDLER.fullmatch(text) else f"job_{text}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
