"""What a pool decides: pure and synchronous, events in, actions out. No I/O, no clock, no asyncio."""
