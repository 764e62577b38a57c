"""The HTTP API under `/api/v1`, for programs in any language.

`endpoints.py` is one table: the routes are made from it, and so is the OpenAPI document (`openapi.py`), so neither can lack what
the other has. Errors are problem details (RFC 9457).
"""
