"""DyNeMo, Dynamic Network Modes."""
