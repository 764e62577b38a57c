"""The dashboard and the HTTP API: one ASGI application over a client.

`create_app` makes it. A page is a module in `pages/`, the API one table in `api/`; both read through the backend's own methods
and write only through its transitions, so nothing here can do what the command line cannot. What is live goes through `hub.py`
(events of runs) and `boards.py` (parts of pages): each reads once a process, however many look.
"""

from redisflow.web.app import create_app
from redisflow.web.options import WebOptions

__all__ = ["WebOptions", "create_app"]
