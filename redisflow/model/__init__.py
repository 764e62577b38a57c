"""The domain: events, states, projections, plans and errors. Pure: no Redis, no asyncio, no clock, no logging."""
