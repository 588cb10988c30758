"""How Dujiang is tested: `unit` rules, `contracts` of the ports, `wire`, `flows`, `crash`."""
