"""A cluster tortured by seed: what happens to it is drawn from a number, and so is the same each time.

`swarm` draws a trial (sizes, options, jobs, faults), `trial` runs it, `checkers` say what must never happen, `shrink`
makes a failing trial small enough to be read.
"""
