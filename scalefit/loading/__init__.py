"""Tables and curves from anywhere: read, recognised, checked and converted."""
