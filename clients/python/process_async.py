"""The same with asyncio: many calls may share one client and one connection."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing

from printing import connection, line, parse, print_error, print_event, print_result

from sluiceway import AsyncClient, Options
from sluiceway.client import Priority
from sluiceway.errors import SluicewayError


async def main() -> int:
    """Run and return the exit code."""
    arguments = parse()
    failed = 0
    try:
        async with AsyncClient(**connection(arguments)) as client:
            if arguments.bulk:
                # One stream; images are read and results handed out only as fast as both sides work.
                async for result in client.process_many(
                    arguments.images,
                    Options(priority=Priority.BULK),
                    timeout_s=arguments.timeout,
                    in_flight=arguments.bulk,
                    ordered=False,
                ):
                    failed += print_result(result)
                return int(failed > 0)
            count = 0
            async with aclosing(client.events(*arguments.images)) as events:
                async for event in events:
                    failed += print_event(event)
                    count += 1
                    if count == arguments.cancel_after:
                        # Leaving the loop and closing the iterator ends the call, on the server too.
                        line("error", "CANCELLED", "-", 0, "cancelled here")
                        return 1
    except SluicewayError as error:
        print_error(error)
        return 1
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
