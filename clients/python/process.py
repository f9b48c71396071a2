"""Reads the text in images through a Sluiceway server and prints each event as it comes."""

from __future__ import annotations

import sys
from contextlib import closing

from printing import connection, line, parse, print_error, print_event, print_result

from sluiceway import Client, Options
from sluiceway.client import Priority
from sluiceway.errors import SluicewayError


def main() -> int:
    """Run and return the exit code."""
    arguments = parse()
    failed = 0
    try:
        with Client(**connection(arguments)) as client:
            if arguments.bulk:
                # One stream; images are read and results handed out only as fast as both sides work.
                for result in client.process_many(
                    arguments.images,
                    Options(priority=Priority.BULK),
                    timeout_s=arguments.timeout,
                    in_flight=arguments.bulk,
                    ordered=False,
                ):
                    failed += print_result(result)
                return int(failed > 0)
            with closing(client.events(*arguments.images)) as events:
                for count, event in enumerate(events, 1):
                    failed += print_event(event)
                    if count == arguments.cancel_after:
                        # Leaving the loop and closing the iterator ends the call, on the server too.
                        line("error", "CANCELLED", "-", 0, "cancelled here")
                        return 1
    except SluicewayError as error:
        print_error(error)
        return 1
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
