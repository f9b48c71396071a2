"""The process that speaks gRPC: requests in, work for the pool, answers out."""
