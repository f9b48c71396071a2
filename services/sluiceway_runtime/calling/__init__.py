"""What a Sluiceway server needs to call another one."""
