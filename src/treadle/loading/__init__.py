"""Load: requests at the times a trace or a rate says, how the answers came, and how many machines they need."""
