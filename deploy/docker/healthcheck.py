"""Health of the server in this container: exit code 0 if it is ready for work, 1 if not.

Run by the container engine every few seconds, so it imports little: `python -I -S healthcheck.py SECTION PORT`, where
PORT is the operations port unless the environment sets another.
"""

import os
import socket
import sys

TIMEOUT_S = 2.0


def main() -> int:
    """Ask `/readyz` over plain HTTP."""
    section, port = sys.argv[1:]
    port = os.environ.get(f"SLUICEWAY_{section}__OPERATIONS_PORT".upper(), port)
    try:
        with socket.create_connection(("127.0.0.1", int(port)), timeout=TIMEOUT_S) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            status = connection.makefile("rb").readline().split()
    except OSError as error:
        print(error)  # shown by `docker inspect`
        return 1
    print(b" ".join(status).decode(errors="replace"))
    return 0 if status[1:2] == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main())
