"""How a pool's front and its workers reach each other: processes, sockets, shared memory. Decides nothing."""
