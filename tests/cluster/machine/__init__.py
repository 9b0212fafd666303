"""The parts of the state machine: processes in one loop, networks, a world, the law."""
