"""The public HTTP port: the pipeline for those without gRPC. Jobs go the same way, under the same limits and tokens."""
