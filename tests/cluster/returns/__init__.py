"""The parts of the state machine about clients that come back: wires, a world, the law."""
