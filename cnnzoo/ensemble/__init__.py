"""Several trained nets that answer as one: combining runs, making members, averaging weights, and why it helps."""
