"""How far off predictions were when they could be checked, and what that says of the next one."""
