"""A soak: many workers, clients and faults for minutes, and then the question whether anything was lost or doubled.

    make soak                                     ten minutes
    python -m bench.soak --minutes 3 --seed 7     the same schedule of faults again
    python -m bench.soak --cluster                on a Cluster of three primaries with a replica each

It starts servers of its own with AOF, workers and reclaimers as processes, and clients in this one. A seeded nemesis kills,
freezes, cuts and misuses them. Clients note what was acknowledged; every execution of a body leaves a line in a ledger outside
Redis. In the end faults stop, everything must become terminal, `verify` must find nothing, all that was acknowledged must be there,
and each effect must have happened at least once and at most as often as its step was started.
"""
