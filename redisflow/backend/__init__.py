"""The backend: everything that talks to Redis, and nothing else does."""
