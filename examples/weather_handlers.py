"""A handler with an input and two outputs. A worker imports this module because its pool names it."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

from taskflow_worker.sdk import Context, handler


@handler("weather.by_month")
def by_month(year: int, *, context: Context) -> dict[str, Any]:
    """Sum the rain and average the temperature of each month; write a table and a plot."""
    rain: dict[int, float] = defaultdict(float)
    highs: dict[int, list[float]] = defaultdict(list)
    with context.input("weather.csv").open() as file:
        for row in csv.DictReader(file):
            row_year, month = (int(part) for part in row["date"].split("/")[:2])
            if row_year == year:
                rain[month] += float(row["precipitation"])
                highs[month].append(float(row["temp_max"]))
    if not rain:
        raise ValueError(f"the data has no day of {year}")
    months = sorted(rain)
    means = {month: sum(highs[month]) / len(highs[month]) for month in months}
    with context.output("by-month.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["month", "rain_mm", "mean_high_celsius"])
        writer.writerows([month, round(rain[month], 1), round(means[month], 1)] for month in months)
    _plot(year, rain, means, context.output("by-month.png"))
    return {"days": sum(map(len, highs.values())), "rain_mm": round(sum(rain.values()), 1)}


def _plot(year: int, rain: dict[int, float], means: dict[int, float], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and only this handler needs it

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, left = plt.subplots(figsize=(8, 4.5), layout="constrained")
    left.bar(list(rain), list(rain.values()), color="#7aa6c2", label="rain, mm")
    left.set(title=f"Seattle {year}", xlabel="month", ylabel="rain, mm", xticks=list(rain))
    right = left.twinx()
    right.plot(list(means), list(means.values()), color="#b5432e", marker="o", label="mean high, °C")
    right.set_ylabel("mean daily high, °C")
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path, format="png", dpi=110)
    plt.close(figure)
