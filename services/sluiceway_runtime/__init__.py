"""What every Sluiceway server is made of: worker pool, gRPC server, health, operations port, configuration, errors."""
