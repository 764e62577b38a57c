"""A real server for one folder: started by whoever needs it first, gone when nobody does.

Three files of the folder decide everything, two by the kernel's `flock`, which no crash leaves behind:

- `lock`: every user holds it shared. The watcher that finds nobody holding it takes it exclusively and ends
  the server; whoever comes meanwhile waits for that end and starts afresh.
- `server.lock`: who holds it may start the server. The starter hands it to the watcher and the watcher to the
  server as an open descriptor, so it is free exactly when both are dead. Starters serialise on it.
- `socket`: the path of the unix socket, where the folder's own path is too long for one.

`server.py` is the users' side, `watcher.py` the process above the server, `program.py` finds the binary.
"""

from redisflow.embedded.server import EmbeddedServer, attach

__all__ = ["EmbeddedServer", "attach"]
