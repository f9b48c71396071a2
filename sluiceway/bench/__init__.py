"""Load on a running cluster, and what it does to latency: the parts of `sluiceway bench`.

Arrivals, statistics and the search of the knee are pure: they take and give numbers. `load` sends, on the clock of its
event loop; `caller` is what it sends with. `summary` makes figures of outcomes; `table` and `page` show them.
"""
