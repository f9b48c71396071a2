"""Command line and output, the same for both programs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sluiceway.client import (
    Event,
    JobDone,
    Page,
    Reading,
    Region,
    Regions,
    Result,
    RetryPolicy,
    SourceDone,
    SourceFailed,
    SourceReady,
    Subject,
    Tls,
    Values,
)
from sluiceway.errors import SluicewayError


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="sluiceway-client", description=__doc__)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--address", default="localhost:50051", metavar="HOST:PORT")
    parser.add_argument(
        "--ca", type=Path, help="use TLS and trust these certificates; the token in SLUICEWAY_TOKEN is sent"
    )
    parser.add_argument("--cert", type=Path, help="the client's own certificate (mutual TLS)")
    parser.add_argument("--key", type=Path, help="its private key")
    parser.add_argument(
        "--timeout", type=float, default=60, metavar="SECONDS", help="deadline of the call, or of each job with --bulk"
    )
    parser.add_argument("--cancel-after", type=int, metavar="N", help="cancel the call after N events")
    parser.add_argument("--bulk", type=int, metavar="N", help="all images over one stream, at most N unfinished")
    arguments = parser.parse_args()
    if os.environ.get("SLUICEWAY_TOKEN") and not arguments.ca:
        parser.error("a token is only sent over TLS: give --ca")
    return arguments


def connection(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of a client."""
    return {
        "address": arguments.address,
        "tls": Tls(ca=arguments.ca, certificate=arguments.cert, key=arguments.key) if arguments.ca else None,
        "token": os.environ.get("SLUICEWAY_TOKEN"),
        "timeout_s": arguments.timeout,
        # This program shows errors; without this the library tries again as long as the server allows.
        "retry": RetryPolicy(attempts=1),
    }


def print_event(event: Event) -> int:
    """Print a line for each thing that an event tells; returns how many sources it says have failed."""
    match event:
        case SourceReady():
            line("source_ready", name(event.source), event.size_bytes)
        case Regions():
            print_regions(event.source, event.page, event.regions)
        case Values():
            for region, reading in event.readings.items():
                print_reading(event.source, region, reading)
            if event.reading is not None and event.subject is Subject.PAGE:
                print_page_class(event.source, event.page, event.reading)
        case SourceDone():
            line("done", name(event.source), " ".join(str(region) for region in event.reading_order))
        case SourceFailed():
            line("failed", name(event.source), event.error.reason, event.error.message)
            return 1
        case JobDone():
            line("job_done", "", event.succeeded, event.failed)
    return 0


def print_result(result: Result) -> int:
    """Print a finished image; returns 1 if it failed."""
    if result.error is not None:
        line("failed", name(result.source), result.error.reason, result.error.message)
        return 1
    for page in result.pages:
        print_regions(result.source, page, [region for region in result.regions if region.page == page.index])
    for region in result.regions:
        for reading in region.readings:
            print_reading(result.source, region.id, reading)
    for number, values in result.page_values.items():
        for reading in values.values():
            print_page_class(result.source, number, reading)
    line("done", name(result.source), " ".join(str(region.id) for region in result.regions))
    return 0


def print_regions(source: str, page: Page, regions: Sequence[Region]) -> None:
    """Print where the regions of a page are."""
    line("regions", name(source), page.width, page.height, len(regions))
    for region in regions:
        upright = sorted(region.outline) == sorted(region.box.corners)
        numbers = region.box if upright else (number for corner in region.outline for number in corner)
        kind, shown = "box" if upright else "outline", " ".join(f"{number:.2f}" for number in numbers)
        line(kind, name(source), region.id, shown, region.class_name, f"{region.confidence:.4f}")
        if region.keypoints:
            # Where each point is, and how sure the model is that it can be seen.
            points = " ".join(f"{number:.2f}" for point in region.keypoints for number in point)
            line("keypoints", name(source), region.id, points)


def print_reading(source: str, region: int, reading: Reading) -> None:
    """Print what was read, or the most probable class."""
    if reading.text is not None:
        line("text", name(source), region, f"{reading.confidence:.4f}", reading.text)
    if reading.labels:
        line("class", name(source), region, f"{reading.confidence:.4f}", reading.labels[0].class_name)


def print_page_class(source: str, page: int, reading: Reading) -> None:
    """Print the most probable class of a page."""
    if reading.labels:
        line("page_class", name(source), page, f"{reading.confidence:.4f}", reading.labels[0].class_name)


def print_error(error: SluicewayError) -> None:
    """Print what the server said: the code, Sluiceway's stable reason, and when to try again."""
    line("error", error.code, error.reason, round((error.retry_after_s or 0) * 1000), error.message)
    for key, value in error.metadata.items():
        line("error_metadata", key, value)


def name(source: str) -> str:
    """Return the file's name; the library names a source as it was given."""
    return Path(source).name


def line(*fields: object) -> None:
    """Print tab-separated fields at once."""
    print(*fields, sep="\t", flush=True)  # noqa: T201 - output is what this program is for
