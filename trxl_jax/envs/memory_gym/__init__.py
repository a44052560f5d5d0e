"""Memory Gym's tasks as pure functions of arrays, equal to the released package's bit for bit."""
