"""Servers, channels and names without a network: what of gRPC the code of the cluster uses, in memory and late."""
