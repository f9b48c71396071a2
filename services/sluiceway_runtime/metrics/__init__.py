"""What servers show to Prometheus: instruments that cost next to nothing, and collectors that read when it is scraped.

Every family is declared where it is made and listed in `catalogue`; docs/metrics.md is made of that list.
"""
