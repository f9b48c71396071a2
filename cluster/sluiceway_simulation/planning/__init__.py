"""What a cluster needs for a goal, found by simulating it: load, prediction, and a search for the cheapest."""
